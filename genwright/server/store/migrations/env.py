"""Alembic's entry: run the migrations on the connection that the store hands in, inside its transaction."""

from alembic import context

from genwright.server.store.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
context.run_migrations()
