environment = "staging"

use_spot           = true
protect_data       = false
log_retention_days = 7
