-- Roles with no more rights than they need, on PostgreSQL 14 or later. Run it as a superuser, after the first
-- `zego-watchdog migrate`:
--
--   psql -v ON_ERROR_STOP=1 -d DATABASE -v schema=public -f roles.sql
--
-- It may be run again: after a migration, which may have added tables, and whenever somebody has granted too much.
-- The roles cannot log in. Give them to those that do:
--
--   CREATE ROLE watchdog LOGIN PASSWORD '…' IN ROLE zego_daemon;      -- database.url of the daemon
--   CREATE ROLE backend  LOGIN PASSWORD '…' IN ROLE zego_application; -- or: GRANT zego_application TO your_backend
--   CREATE ROLE anna     LOGIN PASSWORD '…' IN ROLE zego_analyst;
--   CREATE ROLE deployer LOGIN PASSWORD '…' IN ROLE zego_owner;       -- runs `zego-watchdog migrate`
--   ALTER ROLE deployer SET role = zego_owner;                        -- so that new tables are the owner's

\if :{?schema}
\else
  \set schema public
\endif
-- By name, for the application may have tables of its own that begin with zego_.
\set tables 'ARRAY[''zego_tasks'', ''zego_stop_attempts'', ''zego_daemons'', ''zego_pace'', ''zego_rejoins'', ''zego_room_sessions'', ''zego_room_users'', ''zego_callbacks_seen'']'
BEGIN;
SET LOCAL search_path = :"schema";

SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[
    'zego_owner', 'zego_daemon', 'zego_application', 'zego_analyst'
]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- What everybody may do by default, and nobody needs: tables of one's own in the schema (PostgreSQL 14), and
-- temporary ones. Grant it again to whoever in this database does need it.
REVOKE CREATE ON SCHEMA :"schema" FROM PUBLIC;
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec

-- The owner: the only one who may create, change and drop the tables. Migrations run as a member of it.
GRANT USAGE, CREATE ON SCHEMA :"schema" TO zego_owner;
SELECT format('ALTER TABLE %I OWNER TO zego_owner', name)
FROM unnest(:tables || ARRAY['zego_schema_version', 'zego_stop_history']) AS name \gexec
SELECT DISTINCT format('ALTER FUNCTION %s OWNER TO zego_owner', tgfoid::regprocedure)
FROM unnest(:tables) AS name JOIN pg_trigger ON tgrelid = to_regclass(name) AND NOT tgisinternal \gexec

-- Begin anew, so that a right that is not below is not there.
GRANT USAGE ON SCHEMA :"schema" TO zego_daemon, zego_application, zego_analyst;
SELECT format('REVOKE ALL ON %I FROM PUBLIC, zego_daemon, zego_application, zego_analyst', name)
FROM unnest(:tables || ARRAY['zego_schema_version', 'zego_stop_history']) AS name \gexec

-- The daemon: rows, and no tables. It inserts tasks that callbacks tell of (zego.discover), and deletes what is too old
-- (retention).
GRANT SELECT ON zego_schema_version, zego_stop_history TO zego_daemon;
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO zego_daemon', name) FROM unnest(:tables) AS name \gexec

-- The application: its three statements, in the columns that are its own. The triggers work with its rights, and need
-- no more than these: they only change the row that is being written.
GRANT SELECT, DELETE ON zego_tasks TO zego_application;
GRANT INSERT (
    task_id, room_id, app_id, kind, max_idle_seconds, grace_seconds, hold_until, started_at,
    user_count, user_count_at, user_count_source, status, ended_at
) ON zego_tasks TO zego_application;
GRANT UPDATE (
    max_idle_seconds, grace_seconds, hold_until, started_at,
    user_count, user_count_at, user_count_source, status, ended_at
) ON zego_tasks TO zego_application;

-- The analyst: reads the history and the ledger, and nothing else. The version is what `zego-watchdog history` and
-- `zego-watchdog history export` look at first.
GRANT SELECT ON zego_stop_history, zego_stop_attempts, zego_schema_version TO zego_analyst;
COMMIT;
