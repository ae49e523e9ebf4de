locals {
  queue_name_suffix = ""
  fifo              = false
}
