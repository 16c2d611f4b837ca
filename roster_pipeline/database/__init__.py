"""The PostgreSQL edge: the embedded server, connections, the district lock, migrations, and the runner of the SQL models."""
