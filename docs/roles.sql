-- Roles with only the rights that they need, for PostgreSQL 14 or later. Run it after the first `zego-watchdog migrate`, as a
-- superuser; or as the owner of the database and of these tables, with the right CREATEROLE, as on a managed PostgreSQL:
--
--   psql -v ON_ERROR_STOP=1 -d DATABASE -v schema=public -f roles.sql
--
-- Run it again after a migration, which may have added tables, or to revoke rights that were granted in addition.
-- The roles have no login. Grant them to your login roles:
--
--   CREATE ROLE watchdog LOGIN PASSWORD '…' IN ROLE zego_daemon;      -- database.url of the daemon
--   CREATE ROLE backend  LOGIN PASSWORD '…' IN ROLE zego_application; -- or: GRANT zego_application TO your_backend
--   CREATE ROLE anna     LOGIN PASSWORD '…' IN ROLE zego_analyst;
--   CREATE ROLE deployer LOGIN PASSWORD '…' IN ROLE zego_owner;       -- runs `zego-watchdog migrate`
--   ALTER ROLE deployer SET role = zego_owner;                        -- new tables then belong to zego_owner

\if :{?schema}
\else
  \set schema public
\endif
-- By name, because the application may have its own tables that begin with zego_.
\set tables 'ARRAY[''zego_tasks'', ''zego_stop_attempts'', ''zego_daemons'', ''zego_pace'', ''zego_rejoins'', ''zego_room_sessions'', ''zego_room_users'', ''zego_callbacks_seen'', ''zego_deleted_tasks'', ''zego_events'', ''zego_event_types'', ''zego_empty_spells'']'
BEGIN;
SET LOCAL search_path = :"schema";

SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[
    'zego_owner', 'zego_daemon', 'zego_application', 'zego_analyst'
]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Only a member of zego_owner, or a superuser, may give it the tables, and change what it owns.
SELECT format('GRANT zego_owner TO %I', current_user) WHERE NOT pg_has_role('zego_owner', 'USAGE') \gexec

-- Revoke default rights: creating tables in the schema (PostgreSQL 14) and temporary tables. Grant them again to the roles
-- in this database that need them.
REVOKE CREATE ON SCHEMA :"schema" FROM PUBLIC;
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec

-- The owner: the only role that may create, change and drop the tables. Migrations run as a member of it.
GRANT USAGE, CREATE ON SCHEMA :"schema" TO zego_owner;
SELECT format('ALTER TABLE %I OWNER TO zego_owner', name)
FROM unnest(:tables || ARRAY['zego_schema_version', 'zego_stop_history', 'zego_savings']) AS name \gexec
SELECT DISTINCT format('ALTER FUNCTION %s OWNER TO zego_owner', tgfoid::regprocedure)
FROM unnest(:tables) AS name JOIN pg_trigger ON tgrelid = to_regclass(name) AND NOT tgisinternal \gexec

-- Revoke everything first, so that only the rights below remain.
GRANT USAGE ON SCHEMA :"schema" TO zego_daemon, zego_application, zego_analyst;
SELECT format('REVOKE ALL ON %I FROM PUBLIC, zego_daemon, zego_application, zego_analyst', name)
FROM unnest(:tables || ARRAY['zego_schema_version', 'zego_stop_history', 'zego_savings']) AS name \gexec

-- The daemon: rows only. It inserts tasks that callbacks report (zego.discover), and deletes old rows (retention).
GRANT SELECT ON zego_schema_version, zego_stop_history, zego_savings TO zego_daemon;
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO zego_daemon', name) FROM unnest(:tables) AS name \gexec

-- The application: its three statements, on its own columns. The triggers run with its rights and need no more than these:
-- they change only the row that is being written, and note the TaskId of a row that is deleted. Those that write events and
-- empty spells run with the rights of zego_owner. Of events, the application marks those that it has handled, and nothing else.
GRANT SELECT, DELETE ON zego_tasks TO zego_application;
GRANT INSERT ON zego_deleted_tasks TO zego_application;
GRANT INSERT (
    task_id, room_id, app_id, kind, bot_user_id, max_idle_seconds, grace_seconds, hold_until, started_at,
    user_count, user_count_at, user_count_source, status, ended_at
) ON zego_tasks TO zego_application;
GRANT UPDATE (
    bot_user_id, max_idle_seconds, grace_seconds, hold_until, started_at,
    user_count, user_count_at, user_count_source, status, ended_at
) ON zego_tasks TO zego_application;
GRANT SELECT, UPDATE (handled_at) ON zego_events TO zego_application;

-- The analyst: reads the history, the ledger, savings and empty spells, nothing else. `zego-watchdog history` and
-- `zego-watchdog history export` read the schema version first.
GRANT SELECT ON zego_stop_history, zego_stop_attempts, zego_savings, zego_empty_spells, zego_schema_version TO zego_analyst;
COMMIT;
