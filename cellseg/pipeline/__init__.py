"""A count from the request to the finished result folder, told as events."""
