-- Revision 0001 on PostgreSQL.
CREATE TABLE zego_tasks (
    task_id           text PRIMARY KEY,
    room_id           text NOT NULL,
    app_id            bigint,
    kind              text NOT NULL DEFAULT 'asr',
    max_idle_seconds  integer,
    grace_seconds     integer,
    hold_until        timestamptz,
    started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_count        integer,
    user_count_at     timestamptz,
    user_count_source text,
    last_occupied_at  timestamptz,
    empty_since       timestamptz,
    due_at            timestamptz,
    auto_stop_at      timestamptz,
    wake_at           timestamptz,
    claimed_by        text,
    attempts          integer NOT NULL DEFAULT 0,
    status            text NOT NULL DEFAULT 'active',
    ended_at          timestamptz,
    CONSTRAINT zego_task_id_not_empty          CHECK (task_id <> ''),
    CONSTRAINT zego_room_id_1_to_128_bytes     CHECK (octet_length(room_id) BETWEEN 1 AND 128),
    CONSTRAINT zego_app_id_uint32              CHECK (app_id BETWEEN 1 AND 4294967295),
    CONSTRAINT zego_kind_known                 CHECK (kind = 'asr'),
    CONSTRAINT zego_max_idle_seconds_positive  CHECK (max_idle_seconds > 0),
    CONSTRAINT zego_grace_seconds_not_negative CHECK (grace_seconds >= 0),
    CONSTRAINT zego_user_count_not_negative    CHECK (user_count >= 0),
    CONSTRAINT zego_user_count_source_known    CHECK (user_count_source IN ('app', 'callback', 'api')),
    CONSTRAINT zego_status_known               CHECK (status IN ('active', 'stopped', 'gone', 'auto_stopped', 'failed', 'released')),
    CONSTRAINT zego_hold_until_is_a_time       CHECK (hold_until >= '1970-01-01 00:00Z' AND hold_until < '10000-01-01 00:00Z'),
    CONSTRAINT zego_started_at_is_a_time       CHECK (started_at >= '1970-01-01 00:00Z' AND started_at < '9000-01-01 00:00Z'),
    CONSTRAINT zego_user_count_at_is_a_time    CHECK (user_count_at >= '1970-01-01 00:00Z' AND user_count_at < '10000-01-01 00:00Z'),
    CONSTRAINT zego_ended_at_is_a_time         CHECK (ended_at >= '1970-01-01 00:00Z' AND ended_at < '10000-01-01 00:00Z')
)
--;
CREATE TABLE zego_stop_attempts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id         text NOT NULL,
    kind            text NOT NULL,
    app_id          bigint,
    room_id         text NOT NULL,
    attempt         integer,
    reason          text NOT NULL,
    evidence_source text,
    evidence_at     timestamptz,
    empty_since     timestamptz,
    due_at          timestamptz,
    auto_stop_at    timestamptz,
    sent_at         timestamptz,
    replied_at      timestamptz,
    http_status     integer,
    code            text,
    message         text,
    request_id      text,
    outcome         text NOT NULL,
    detail          text,
    instance        text NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT zego_outcome_known CHECK (outcome IN ('sent', 'stopped', 'gone', 'stopped_earlier', 'auto_stopped', 'retry', 'unknown', 'rejected', 'blocked', 'spared', 'withheld', 'would_stop'))
)
--;
CREATE TABLE zego_daemons (
    instance       text PRIMARY KEY,
    host           text NOT NULL,
    pid            integer NOT NULL,
    version        text NOT NULL,
    mode           text NOT NULL,
    started_at     timestamptz NOT NULL,
    watching_since timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL
)
--;
-- Apply a hint. The daemon's columns get their initial values, whatever the INSERT says.
CREATE FUNCTION zego_tasks_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment constant timestamptz := clock_timestamp();
BEGIN
    NEW.last_occupied_at := NULL;
    NEW.empty_since := NULL;
    NEW.due_at := NULL;
    NEW.auto_stop_at := NULL;
    NEW.wake_at := NULL;
    NEW.claimed_by := NULL;
    NEW.attempts := 0;
    NEW.ended_at := CASE WHEN NEW.status <> 'active' THEN coalesce(NEW.ended_at, moment) END;
    IF NEW.user_count IS NULL THEN
        NEW.user_count_at := NULL;
        NEW.user_count_source := NULL;
    ELSE
        NEW.user_count_at := least(coalesce(NEW.user_count_at, moment), moment);
        NEW.user_count_source := coalesce(NEW.user_count_source, 'app');
        IF NEW.user_count > 0 THEN
            NEW.last_occupied_at := NEW.user_count_at;
        ELSE
            NEW.empty_since := NEW.user_count_at;
        END IF;
    END IF;
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_inserted BEFORE INSERT ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_inserted()
--;
CREATE FUNCTION zego_tasks_hinted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment constant timestamptz := clock_timestamp();
    -- SQL cannot tell a missing time from an unchanged one: both mean now.
    at_given constant boolean := NEW.user_count_at IS NOT NULL AND NEW.user_count_at IS DISTINCT FROM OLD.user_count_at;
BEGIN
    -- An observation older than the stored one is ignored: the statement skips the row.
    IF at_given AND NEW.user_count_at < OLD.user_count_at AND NEW.status = OLD.status THEN
        RETURN NULL;
    END IF;
    IF NEW.user_count IS NULL THEN
        NEW.user_count_source := NULL;
    ELSIF NEW.user_count_source IS NULL
            OR (NEW.user_count_source IS NOT DISTINCT FROM OLD.user_count_source AND NOT at_given) THEN
        NEW.user_count_source := 'app';
    END IF;
    NEW.user_count_at := CASE WHEN at_given THEN least(NEW.user_count_at, moment) ELSE moment END;
    IF NEW.user_count = 0 THEN
        IF OLD.user_count IS DISTINCT FROM 0 OR NEW.empty_since IS NULL THEN
            NEW.empty_since := NEW.user_count_at;
        END IF;
    ELSE
        IF NEW.user_count > 0 THEN
            NEW.last_occupied_at := NEW.user_count_at;
        END IF;
        NEW.empty_since := NULL;
        NEW.due_at := NULL;
        NEW.auto_stop_at := NULL;
        -- While a claim is held, wake_at is the end of its lease and stays.
        IF NEW.claimed_by IS NULL THEN
            NEW.wake_at := NULL;
        END IF;
    END IF;
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_hinted BEFORE UPDATE OF user_count ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_hinted()
--;
-- The time of an observation that is written alone is never in the future.
CREATE FUNCTION zego_tasks_observed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Not least(): a time set to null stays null, and the age of the hint is unknown.
    IF NEW.user_count_at > clock_timestamp() THEN
        NEW.user_count_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_observed BEFORE UPDATE OF user_count_at ON zego_tasks
FOR EACH ROW WHEN (NEW.user_count_at IS DISTINCT FROM OLD.user_count_at)
EXECUTE FUNCTION zego_tasks_observed()
--;
-- A changed hold or time limit needs a new plan. While a claim is held, wake_at is the end of its lease.
CREATE FUNCTION zego_tasks_replan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.due_at := NULL;
    NEW.auto_stop_at := NULL;
    IF NEW.claimed_by IS NULL THEN
        NEW.wake_at := NULL;
    END IF;
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_replan BEFORE UPDATE OF hold_until, grace_seconds, max_idle_seconds, started_at ON zego_tasks
FOR EACH ROW WHEN (
    NEW.hold_until IS DISTINCT FROM OLD.hold_until OR NEW.grace_seconds IS DISTINCT FROM OLD.grace_seconds
    OR NEW.max_idle_seconds IS DISTINCT FROM OLD.max_idle_seconds OR NEW.started_at IS DISTINCT FROM OLD.started_at
)
EXECUTE FUNCTION zego_tasks_replan()
--;
-- A final status never changes: the statement skips the row of an ended task.
CREATE FUNCTION zego_tasks_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'active' THEN
        RETURN NULL;
    END IF;
    NEW.ended_at := coalesce(NEW.ended_at, clock_timestamp());
    NEW.wake_at := NULL;
    NEW.claimed_by := NULL;
    RETURN NEW;
END
$$
--;
CREATE TRIGGER zego_tasks_ended BEFORE UPDATE OF status ON zego_tasks
FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status)
EXECUTE FUNCTION zego_tasks_ended()
--;
CREATE FUNCTION zego_stop_attempts_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'zego_stop_attempts: a row is never updated after its final outcome';
END
$$
--;
CREATE TRIGGER zego_stop_attempts_append_only BEFORE UPDATE ON zego_stop_attempts
FOR EACH ROW WHEN (OLD.outcome <> 'sent')
EXECUTE FUNCTION zego_stop_attempts_append_only()
--;
CREATE VIEW zego_stop_history AS
SELECT
    h.task_id, h.room_id, h.app_id, h.kind, h.reason, h.outcome, h.code, h.message, h.request_id, h.attempts,
    h.empty_since, h.due_at, h.stopped_at, h.auto_stop_at,
    round(extract(epoch FROM h.stopped_at - h.due_at), 3)::double precision AS reaction_seconds,
    round(extract(epoch FROM h.auto_stop_at - h.stopped_at), 3)::double precision AS seconds_before_auto_stop
FROM (
    SELECT
        a.*,
        (SELECT coalesce(max(n.attempt), 0) FROM zego_stop_attempts AS n WHERE n.task_id = a.task_id) AS attempts,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') THEN a.replied_at END AS stopped_at
    FROM zego_stop_attempts AS a
    WHERE NOT EXISTS (SELECT 1 FROM zego_stop_attempts AS later WHERE later.task_id = a.task_id AND later.id > a.id)
) AS h
