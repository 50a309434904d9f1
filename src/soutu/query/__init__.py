"""Parse queries and expand their texts."""
