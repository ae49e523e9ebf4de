locals {
  results_look_actions      = []
  results_change_statements = {}
  results_first_uses        = []
}
