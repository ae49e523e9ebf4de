mock_resource "aws_elasticache_replication_group" {
  defaults = { primary_endpoint_address = "master.results.euw1.cache.amazonaws.com" }
}
