-- Revision 0006 on PostgreSQL.
-- The switch: events are written only of the types that have a row.
CREATE TABLE zego_event_types (
    type    text PRIMARY KEY,
    webhook boolean NOT NULL
)
--;
CREATE TABLE zego_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type         text NOT NULL,
    task_id      text NOT NULL,
    kind         text NOT NULL,
    app_id       bigint,
    room_id      text NOT NULL,
    occurred_at  timestamptz NOT NULL,
    data         jsonb NOT NULL,
    handled_at   timestamptz,
    delivered_at timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    wake_at      timestamptz,
    claimed_by   text,
    error        text
)
--;
-- The functions that write events run with the rights of their owner, because the application has no right to write events.
-- So they use no search path but their own; a trigger can be made of them by their owner only, and works in any schema.
-- Texts are cut, so that the body of a webhook stays below 20 kB.
CREATE FUNCTION zego_tasks_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    event constant text := CASE WHEN TG_ARGV[0] = 'discovered' THEN 'task.discovered' ELSE 'task.' || NEW.status END;
    as_text constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
    moment constant timestamptz := clock_timestamp();
    by_webhook boolean;
    said record;
BEGIN
    PERFORM set_config('search_path', concat(current_setting('search_path'), ', ', quote_ident(TG_TABLE_SCHEMA), ', pg_temp'), true);
    SELECT t.webhook INTO by_webhook FROM zego_event_types AS t
    WHERE t.type = event AND NOT EXISTS (SELECT FROM zego_events AS e WHERE e.task_id = NEW.task_id AND e.type = event);
    IF FOUND THEN
        SELECT * INTO said FROM zego_stop_attempts AS a
        WHERE a.task_id = NEW.task_id AND CASE a.outcome
            WHEN 'stopped_earlier' THEN 'stopped' WHEN 'rejected' THEN 'failed' ELSE a.outcome END = NEW.status
        ORDER BY a.id DESC LIMIT 1;
        INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
        VALUES (
            event, NEW.task_id, NEW.kind, coalesce(NEW.app_id, said.app_id), NEW.room_id, moment,
            CASE WHEN by_webhook THEN moment END,
            jsonb_build_object(
                'task_id', left(NEW.task_id, 500),
                'kind', NEW.kind,
                'app_id', coalesce(NEW.app_id, said.app_id),
                'room_id', NEW.room_id,
                'status', NEW.status,
                'reason', said.reason,
                'outcome', said.outcome,
                'attempt', said.attempt,
                'code', left(said.code, 200),
                'request_id', left(said.request_id, 200),
                'http_status', said.http_status,
                'started_at', to_char(NEW.started_at AT TIME ZONE 'UTC', as_text),
                'empty_since', to_char(NEW.empty_since AT TIME ZONE 'UTC', as_text),
                'due_at', to_char(NEW.due_at AT TIME ZONE 'UTC', as_text),
                'auto_stop_at', to_char(NEW.auto_stop_at AT TIME ZONE 'UTC', as_text),
                'ended_at', to_char(NEW.ended_at AT TIME ZONE 'UTC', as_text)
            )
        );
    END IF;
    -- For the trigger that runs before an INSERT.
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION zego_tasks_told() FROM PUBLIC
--;
CREATE TRIGGER zego_tasks_told AFTER UPDATE OF status ON zego_tasks
FOR EACH ROW WHEN (OLD.status = 'active' AND NEW.status IN ('stopped', 'gone', 'auto_stopped', 'failed'))
EXECUTE FUNCTION zego_tasks_told('ended')
--;
CREATE TRIGGER zego_tasks_told_of_discovery AFTER INSERT ON zego_tasks
FOR EACH ROW WHEN (NEW.discovered_at IS NOT NULL)
EXECUTE FUNCTION zego_tasks_told('discovered')
--;
-- The application's INSERT of an ended task over a discovered one that was active ends that task. zego_tasks_taken_over deletes
-- the discovered row.
CREATE FUNCTION zego_tasks_was_active() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('zego_watchdog.was_active', OLD.task_id, true);
    RETURN NULL;
END
$$
--;
CREATE TRIGGER zego_tasks_was_active AFTER DELETE ON zego_tasks
FOR EACH ROW WHEN (OLD.status = 'active' AND current_setting('zego_watchdog.taken_over', true) = OLD.task_id)
EXECUTE FUNCTION zego_tasks_was_active()
--;
-- Triggers run in the order of their names: after zego_tasks_taken_over.
CREATE TRIGGER zego_tasks_told_of_insert BEFORE INSERT ON zego_tasks
FOR EACH ROW WHEN (NEW.status IN ('stopped', 'gone', 'auto_stopped', 'failed')
    AND current_setting('zego_watchdog.was_active', true) = NEW.task_id)
EXECUTE FUNCTION zego_tasks_told('ended')
--;
CREATE FUNCTION zego_rejoins_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    as_text constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
    moment constant timestamptz := clock_timestamp();
    by_webhook boolean;
    its_kind text;
BEGIN
    PERFORM set_config('search_path', concat(current_setting('search_path'), ', ', quote_ident(TG_TABLE_SCHEMA), ', pg_temp'), true);
    SELECT t.webhook INTO by_webhook FROM zego_event_types AS t
    WHERE t.type = 'room.rejoined'
        AND NOT EXISTS (SELECT FROM zego_events AS e WHERE e.task_id = NEW.task_id AND e.type = 'room.rejoined');
    IF FOUND THEN
        its_kind := coalesce(
            (SELECT a.kind FROM zego_stop_attempts AS a WHERE a.task_id = NEW.task_id ORDER BY a.id DESC LIMIT 1), 'asr'
        );
        INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
        VALUES (
            'room.rejoined', NEW.task_id, its_kind, NEW.app_id, NEW.room_id, moment, CASE WHEN by_webhook THEN moment END,
            jsonb_build_object(
                'task_id', left(NEW.task_id, 500),
                'kind', its_kind,
                'app_id', NEW.app_id,
                'room_id', left(NEW.room_id, 500),
                'stopped_at', to_char(NEW.stopped_at AT TIME ZONE 'UTC', as_text),
                'rejoined_at', to_char(NEW.rejoined_at AT TIME ZONE 'UTC', as_text),
                'absent_seconds', round(extract(epoch FROM NEW.rejoined_at - NEW.stopped_at), 3)::double precision
            )
        );
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION zego_rejoins_told() FROM PUBLIC
--;
CREATE TRIGGER zego_rejoins_told AFTER UPDATE OF rejoined_at ON zego_rejoins
FOR EACH ROW WHEN (OLD.rejoined_at IS NULL AND NEW.rejoined_at IS NOT NULL)
EXECUTE FUNCTION zego_rejoins_told()
--;
CREATE FUNCTION zego_stop_attempts_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    as_text constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
    moment constant timestamptz := clock_timestamp();
    by_webhook boolean;
BEGIN
    PERFORM set_config('search_path', concat(current_setting('search_path'), ', ', quote_ident(TG_TABLE_SCHEMA), ', pg_temp'), true);
    SELECT t.webhook INTO by_webhook FROM zego_event_types AS t WHERE t.type = 'task.would_stop';
    IF FOUND THEN
        INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
        VALUES (
            'task.would_stop', NEW.task_id, NEW.kind, NEW.app_id, NEW.room_id, moment, CASE WHEN by_webhook THEN moment END,
            jsonb_build_object(
                'task_id', left(NEW.task_id, 500),
                'kind', NEW.kind,
                'app_id', NEW.app_id,
                'room_id', left(NEW.room_id, 500),
                'status', 'active',
                'reason', NEW.reason,
                'outcome', NEW.outcome,
                'empty_since', to_char(NEW.empty_since AT TIME ZONE 'UTC', as_text),
                'due_at', to_char(NEW.due_at AT TIME ZONE 'UTC', as_text),
                'auto_stop_at', to_char(NEW.auto_stop_at AT TIME ZONE 'UTC', as_text)
            )
        );
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION zego_stop_attempts_told() FROM PUBLIC
--;
CREATE TRIGGER zego_stop_attempts_told AFTER INSERT ON zego_stop_attempts
FOR EACH ROW WHEN (NEW.outcome = 'would_stop')
EXECUTE FUNCTION zego_stop_attempts_told()
