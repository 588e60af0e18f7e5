"""Run by alembic: migrate the connection that `migrations.upgrade` handed over, inside its transaction."""

from alembic import context

from tidegate.server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
