environment = "staging"
# Empty until the first image is pushed: everything is made but workers.
image_tag = ""

use_spot           = true
protect_data       = false
log_retention_days = 7
