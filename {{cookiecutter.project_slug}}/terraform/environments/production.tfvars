environment = "production"
# Empty until the first image is pushed: everything is made but workers.
image_tag = ""

log_retention_days = 90
