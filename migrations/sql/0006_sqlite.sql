-- Revision 0006 on SQLite.
-- The switch: events are written only of the types that have a row.
CREATE TABLE zego_event_types (
    type    TEXT PRIMARY KEY NOT NULL,
    webhook BOOLEAN NOT NULL
)
--;
CREATE TABLE zego_events (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    type         TEXT NOT NULL,
    task_id      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    app_id       BIGINT,
    room_id      TEXT NOT NULL,
    occurred_at  TEXT NOT NULL,
    data         TEXT NOT NULL,
    handled_at   TEXT,
    delivered_at TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    wake_at      TEXT,
    claimed_by   TEXT,
    error        TEXT
)
--;
-- JSON is put together from texts: an SQLite before 3.38 may have no JSON functions, and the application's own statements would
-- then fail because of a trigger that uses them. Texts are cut, so that the body of a webhook stays below 20 kB.
CREATE TRIGGER zego_events_quoted AFTER INSERT ON zego_events
WHEN NEW.data GLOB '*[' || char(1) || '-' || char(31) || ']*'
BEGIN
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(1), '\u0001'), char(2), '\u0002'), char(3), '\u0003'), char(4), '\u0004') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(5), '\u0005'), char(6), '\u0006'), char(7), '\u0007'), char(8), '\b') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(9), '\t'), char(10), '\n'), char(11), '\u000b'), char(12), '\f') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(13), '\r'), char(14), '\u000e'), char(15), '\u000f'), char(16), '\u0010') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(17), '\u0011'), char(18), '\u0012'), char(19), '\u0013'), char(20), '\u0014') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(21), '\u0015'), char(22), '\u0016'), char(23), '\u0017'), char(24), '\u0018') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(replace(data, char(25), '\u0019'), char(26), '\u001a'), char(27), '\u001b'), char(28), '\u001c') WHERE id = NEW.id;
    UPDATE zego_events SET data = replace(replace(replace(data, char(29), '\u001d'), char(30), '\u001e'), char(31), '\u001f') WHERE id = NEW.id;
END
--;
-- A status that is put back (0005) is no end. The plan and the empty spell are the old ones, as in zego_tasks_daemons_own.
CREATE TRIGGER zego_tasks_told AFTER UPDATE OF status ON zego_tasks
WHEN OLD.status = 'active' AND NEW.status IN ('stopped', 'gone', 'auto_stopped', 'failed') AND OLD.claimed_by IS NOT 'put back'
BEGIN
    INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
    SELECT
        t.type, NEW.task_id, NEW.kind, coalesce(NEW.app_id, a.app_id), NEW.room_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'),
        CASE WHEN t.webhook THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END,
        '{"task_id":' || '"' || replace(replace(substr(NEW.task_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"kind":' || '"' || NEW.kind || '"'
        || ',"app_id":' || coalesce(NEW.app_id, a.app_id, 'null')
        || ',"room_id":' || '"' || replace(replace(substr(NEW.room_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"status":' || '"' || NEW.status || '"'
        || ',"reason":' || coalesce('"' || replace(replace(a.reason, '\', '\\'), '"', '\"') || '"', 'null')
        || ',"outcome":' || coalesce('"' || a.outcome || '"', 'null')
        || ',"attempt":' || coalesce(a.attempt, 'null')
        || ',"code":' || coalesce('"' || replace(replace(substr(a.code, 1, 200), '\', '\\'), '"', '\"') || '"', 'null')
        || ',"request_id":' || coalesce('"' || replace(replace(substr(a.request_id, 1, 200), '\', '\\'), '"', '\"') || '"', 'null')
        || ',"http_status":' || coalesce(a.http_status, 'null')
        || ',"started_at":' || coalesce('"' || replace(strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at), ' ', 'T') || 'Z"', 'null')
        || ',"empty_since":' || coalesce('"' || replace(OLD.empty_since, ' ', 'T') || 'Z"', 'null')
        || ',"due_at":' || coalesce('"' || replace(OLD.due_at, ' ', 'T') || 'Z"', 'null')
        || ',"auto_stop_at":' || coalesce('"' || replace(OLD.auto_stop_at, ' ', 'T') || 'Z"', 'null')
        || ',"ended_at":' || coalesce('"' || replace(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')), ' ', 'T') || 'Z"', 'null') || '}'
    FROM zego_event_types AS t LEFT JOIN zego_stop_attempts AS a ON a.id = (
        SELECT id FROM zego_stop_attempts
        WHERE task_id = NEW.task_id
            AND CASE outcome WHEN 'stopped_earlier' THEN 'stopped' WHEN 'rejected' THEN 'failed' ELSE outcome END = NEW.status
        ORDER BY id DESC LIMIT 1
    )
    WHERE t.type = 'task.' || NEW.status
        AND NOT EXISTS (SELECT 1 FROM zego_events AS e WHERE e.task_id = NEW.task_id AND e.type = 'task.' || NEW.status);
END
--;
-- A row that was there before is not discovered, even if the statement says so: zego_tasks_inserted puts it back, before this
-- trigger or after it.
CREATE TRIGGER zego_tasks_told_of_discovery AFTER INSERT ON zego_tasks
WHEN NEW.discovered_at IS NOT NULL
BEGIN
    INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
    SELECT
        t.type, NEW.task_id, NEW.kind, NEW.app_id, NEW.room_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'),
        CASE WHEN t.webhook THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END,
        '{"task_id":' || '"' || replace(replace(substr(NEW.task_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"kind":' || '"' || NEW.kind || '"'
        || ',"app_id":' || coalesce(NEW.app_id, 'null')
        || ',"room_id":' || '"' || replace(replace(substr(NEW.room_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"status":' || '"' || NEW.status || '"'
        || ',"reason":null,"outcome":null,"attempt":null,"code":null,"request_id":null,"http_status":null'
        || ',"started_at":' || coalesce('"' || replace(strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at), ' ', 'T') || 'Z"', 'null')
        || ',"empty_since":null,"due_at":null,"auto_stop_at":null,"ended_at":null}'
    FROM zego_event_types AS t
    WHERE t.type = 'task.discovered' AND NOT EXISTS (SELECT 1 FROM zego_replaced)
        AND EXISTS (SELECT 1 FROM zego_tasks WHERE task_id = NEW.task_id AND discovered_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM zego_events AS e WHERE e.task_id = NEW.task_id AND e.type = 'task.discovered');
END
--;
CREATE TRIGGER zego_rejoins_told AFTER UPDATE OF rejoined_at ON zego_rejoins
WHEN OLD.rejoined_at IS NULL AND NEW.rejoined_at IS NOT NULL
BEGIN
    INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
    SELECT
        t.type, NEW.task_id, coalesce(a.kind, 'asr'), NEW.app_id, NEW.room_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'),
        CASE WHEN t.webhook THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END,
        '{"task_id":' || '"' || replace(replace(substr(NEW.task_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"kind":' || '"' || coalesce(a.kind, 'asr') || '"'
        || ',"app_id":' || coalesce(NEW.app_id, 'null')
        || ',"room_id":' || '"' || replace(replace(substr(NEW.room_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"stopped_at":' || coalesce('"' || replace(NEW.stopped_at, ' ', 'T') || 'Z"', 'null')
        || ',"rejoined_at":' || coalesce('"' || replace(NEW.rejoined_at, ' ', 'T') || 'Z"', 'null')
        || ',"absent_seconds":' || coalesce(round((julianday(NEW.rejoined_at) - julianday(NEW.stopped_at)) * 86400.0, 3), 'null') || '}'
    FROM zego_event_types AS t LEFT JOIN zego_stop_attempts AS a ON a.id = (
        SELECT max(id) FROM zego_stop_attempts WHERE task_id = NEW.task_id
    )
    WHERE t.type = 'room.rejoined'
        AND NOT EXISTS (SELECT 1 FROM zego_events AS e WHERE e.task_id = NEW.task_id AND e.type = 'room.rejoined');
END
--;
CREATE TRIGGER zego_stop_attempts_told AFTER INSERT ON zego_stop_attempts
WHEN NEW.outcome = 'would_stop'
BEGIN
    INSERT INTO zego_events (type, task_id, kind, app_id, room_id, occurred_at, wake_at, data)
    SELECT
        t.type, NEW.task_id, NEW.kind, NEW.app_id, NEW.room_id, strftime('%Y-%m-%d %H:%M:%f000', 'now'),
        CASE WHEN t.webhook THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END,
        '{"task_id":' || '"' || replace(replace(substr(NEW.task_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"kind":' || '"' || NEW.kind || '"'
        || ',"app_id":' || coalesce(NEW.app_id, 'null')
        || ',"room_id":' || '"' || replace(replace(substr(NEW.room_id, 1, 500), '\', '\\'), '"', '\"') || '"'
        || ',"status":' || '"active"'
        || ',"reason":' || '"' || replace(replace(NEW.reason, '\', '\\'), '"', '\"') || '"'
        || ',"outcome":' || '"' || NEW.outcome || '"'
        || ',"empty_since":' || coalesce('"' || replace(NEW.empty_since, ' ', 'T') || 'Z"', 'null')
        || ',"due_at":' || coalesce('"' || replace(NEW.due_at, ' ', 'T') || 'Z"', 'null')
        || ',"auto_stop_at":' || coalesce('"' || replace(NEW.auto_stop_at, ' ', 'T') || 'Z"', 'null') || '}'
    FROM zego_event_types AS t WHERE t.type = 'task.would_stop';
END
