"""The Clever client: everything that knows Clever's hosts, tokens, paging and wire format. Start at `pull.DistrictPull` and
`tokens.list_tokens`.

Does not belong here: rules about values (contracts), and anything that knows a database or what happens to a record afterwards.
"""
