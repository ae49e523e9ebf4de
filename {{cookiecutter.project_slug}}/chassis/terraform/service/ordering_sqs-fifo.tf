locals {
  queue_name_suffix = ".fifo"
  fifo              = true
}
