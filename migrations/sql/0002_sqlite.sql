-- Revision 0002 on SQLite.
ALTER TABLE zego_tasks ADD COLUMN asked_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000'
--;
ALTER TABLE zego_tasks ADD COLUMN vendor_occupied_at TEXT
--;
CREATE TABLE zego_room_sessions (
    app_id          BIGINT NOT NULL,
    room_id         TEXT NOT NULL,
    room_session_id TEXT NOT NULL,
    created_at      TEXT,
    closed_at       TEXT,
    first_seen_at   TEXT,
    seen_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')),
    PRIMARY KEY (app_id, room_id, room_session_id)
)
--;
CREATE TABLE zego_room_users (
    app_id          BIGINT NOT NULL,
    room_id         TEXT NOT NULL,
    room_session_id TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    session_id      TEXT NOT NULL,
    login_at        TEXT,
    logout_at       TEXT,
    role            INTEGER,
    PRIMARY KEY (app_id, room_id, room_session_id, user_id, session_id)
)
--;
CREATE TABLE zego_callbacks_seen (
    replay_key TEXT PRIMARY KEY NOT NULL,
    seen_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now'))
)
--;
CREATE TABLE zego_rejoins (
    task_id     TEXT PRIMARY KEY NOT NULL,
    app_id      BIGINT,
    room_id     TEXT NOT NULL,
    stopped_at  TEXT NOT NULL,
    watch_until TEXT NOT NULL,
    asked_at    TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000',
    rejoined_at TEXT
)
--;
-- When the vendor last saw people. Until then, its 0 may mean a room that it does not know.
CREATE TRIGGER zego_tasks_inserted_seen_by_vendor AFTER INSERT ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        asked_at           = '1970-01-01 00:00:00.000000',
        vendor_occupied_at = CASE WHEN NEW.user_count > 0 AND NEW.user_count_source IN ('api', 'callback') THEN
                                  min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
                                      strftime('%Y-%m-%d %H:%M:%f000', 'now')) END
    WHERE task_id = NEW.task_id;
END
--;
-- May run before or after zego_tasks_hinted, so here too an unchanged source and time mean the application.
CREATE TRIGGER zego_tasks_seen_by_vendor AFTER UPDATE OF user_count ON zego_tasks
WHEN NEW.user_count > 0 AND NEW.user_count_source IN ('api', 'callback')
    AND (NEW.user_count_source IS NOT OLD.user_count_source
         OR (NEW.user_count_at IS NOT NULL AND strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS NOT OLD.user_count_at))
BEGIN
    UPDATE zego_tasks SET
        vendor_occupied_at = CASE WHEN NEW.user_count_at IS NULL OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at
                                  THEN strftime('%Y-%m-%d %H:%M:%f000', 'now')
                                  ELSE min(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END
    WHERE task_id = NEW.task_id;
END
--;
DROP VIEW zego_stop_history
--;
CREATE VIEW zego_stop_history AS
SELECT
    h.task_id, h.room_id, h.app_id, h.kind, h.reason, h.outcome, h.code, h.message, h.request_id, h.attempts,
    h.empty_since, h.due_at, h.stopped_at, h.auto_stop_at,
    round((julianday(h.stopped_at) - julianday(h.due_at)) * 86400.0, 3) AS reaction_seconds,
    round((julianday(h.auto_stop_at) - julianday(h.stopped_at)) * 86400.0, 3) AS seconds_before_auto_stop,
    round((julianday(r.rejoined_at) - julianday(r.stopped_at)) * 86400.0, 3) AS rejoined_after_seconds
FROM (
    SELECT
        a.*,
        (SELECT coalesce(max(n.attempt), 0) FROM zego_stop_attempts AS n WHERE n.task_id = a.task_id) AS attempts,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') THEN a.replied_at END AS stopped_at
    FROM zego_stop_attempts AS a
    WHERE NOT EXISTS (SELECT 1 FROM zego_stop_attempts AS later WHERE later.task_id = a.task_id AND later.id > a.id)
) AS h
LEFT JOIN zego_rejoins AS r ON r.task_id = h.task_id
