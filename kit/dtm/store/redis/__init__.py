"""A store in Redis, alone or as a cluster, under dtm's own key names.

:class:`kit.dtm.store.redis.store.RedisStore` over ``link`` (the connection), ``scripts`` (what runs
inside Redis) and ``records`` (how a transaction is spelled there).
"""
