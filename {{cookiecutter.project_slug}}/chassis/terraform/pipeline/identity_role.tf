locals {
  identity_look_actions      = []
  identity_change_statements = {}
}
