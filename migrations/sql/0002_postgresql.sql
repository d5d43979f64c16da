-- Revision 0002 on PostgreSQL.
ALTER TABLE zego_tasks ADD COLUMN asked_at timestamptz NOT NULL DEFAULT '1970-01-01 00:00Z'
--;
ALTER TABLE zego_tasks ADD COLUMN vendor_occupied_at timestamptz
--;
CREATE TABLE zego_room_sessions (
    app_id          bigint NOT NULL,
    room_id         text NOT NULL,
    room_session_id text NOT NULL,
    created_at      timestamptz,
    closed_at       timestamptz,
    first_seen_at   timestamptz,
    seen_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app_id, room_id, room_session_id)
)
--;
CREATE TABLE zego_room_users (
    app_id          bigint NOT NULL,
    room_id         text NOT NULL,
    room_session_id text NOT NULL,
    user_id         text NOT NULL,
    session_id      text NOT NULL,
    login_at        timestamptz,
    logout_at       timestamptz,
    role            integer,
    PRIMARY KEY (app_id, room_id, room_session_id, user_id, session_id)
)
--;
CREATE TABLE zego_callbacks_seen (
    replay_key text PRIMARY KEY,
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
)
--;
CREATE TABLE zego_rejoins (
    task_id     text PRIMARY KEY,
    app_id      bigint,
    room_id     text NOT NULL,
    stopped_at  timestamptz NOT NULL,
    watch_until timestamptz NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT '1970-01-01 00:00Z',
    rejoined_at timestamptz
)
--;
-- When the vendor last saw people. Until then, its 0 may mean a room that it does not know.
CREATE FUNCTION zego_tasks_seen_by_vendor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.asked_at := '1970-01-01 00:00Z';
        NEW.vendor_occupied_at := NULL;
    END IF;
    IF NEW.user_count > 0 AND NEW.user_count_source IN ('api', 'callback') THEN
        NEW.vendor_occupied_at := NEW.user_count_at;
    END IF;
    RETURN NEW;
END
$$
--;
-- Triggers run in the order of their names: zego_tasks_inserted and zego_tasks_hinted set source and time first.
CREATE TRIGGER zego_tasks_seen_by_vendor BEFORE INSERT OR UPDATE OF user_count ON zego_tasks
FOR EACH ROW EXECUTE FUNCTION zego_tasks_seen_by_vendor()
--;
-- Replaced, not dropped: granted rights and dependent objects of the application stay.
CREATE OR REPLACE VIEW zego_stop_history AS
SELECT
    h.task_id, h.room_id, h.app_id, h.kind, h.reason, h.outcome, h.code, h.message, h.request_id, h.attempts,
    h.empty_since, h.due_at, h.stopped_at, h.auto_stop_at,
    round(extract(epoch FROM h.stopped_at - h.due_at), 3)::double precision AS reaction_seconds,
    round(extract(epoch FROM h.auto_stop_at - h.stopped_at), 3)::double precision AS seconds_before_auto_stop,
    round(extract(epoch FROM r.rejoined_at - r.stopped_at), 3)::double precision AS rejoined_after_seconds
FROM (
    SELECT
        a.*,
        (SELECT coalesce(max(n.attempt), 0) FROM zego_stop_attempts AS n WHERE n.task_id = a.task_id) AS attempts,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') THEN a.replied_at END AS stopped_at
    FROM zego_stop_attempts AS a
    WHERE NOT EXISTS (SELECT 1 FROM zego_stop_attempts AS later WHERE later.task_id = a.task_id AND later.id > a.id)
) AS h
LEFT JOIN zego_rejoins AS r ON r.task_id = h.task_id
