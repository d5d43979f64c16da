-- Revision 0001 on SQLite. Uses only features of SQLite 3.8 and later, because the application may write to these tables
-- with an older SQLite than ours.
CREATE TABLE zego_tasks (
    task_id           TEXT PRIMARY KEY NOT NULL,
    room_id           TEXT NOT NULL,
    app_id            BIGINT,
    kind              TEXT NOT NULL DEFAULT 'asr',
    max_idle_seconds  INTEGER,
    grace_seconds     INTEGER,
    hold_until        TEXT,
    started_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')),
    user_count        INTEGER,
    user_count_at     TEXT,
    user_count_source TEXT,
    last_occupied_at  TEXT,
    empty_since       TEXT,
    due_at            TEXT,
    auto_stop_at      TEXT,
    wake_at           TEXT,
    claimed_by        TEXT,
    attempts          INTEGER NOT NULL DEFAULT 0,
    status            TEXT NOT NULL DEFAULT 'active',
    ended_at          TEXT,
    CONSTRAINT zego_task_id_not_empty         CHECK (task_id <> ''),
    CONSTRAINT zego_room_id_1_to_128_bytes    CHECK (length(CAST(room_id AS BLOB)) BETWEEN 1 AND 128),
    CONSTRAINT zego_app_id_uint32             CHECK (app_id IS NULL OR (typeof(app_id) = 'integer' AND app_id BETWEEN 1 AND 4294967295)),
    CONSTRAINT zego_kind_known                CHECK (kind = 'asr'),
    CONSTRAINT zego_max_idle_seconds_positive CHECK (max_idle_seconds IS NULL OR (typeof(max_idle_seconds) = 'integer' AND max_idle_seconds BETWEEN 1 AND 2147483647)),
    CONSTRAINT zego_grace_seconds_not_negative CHECK (grace_seconds IS NULL OR (typeof(grace_seconds) = 'integer' AND grace_seconds BETWEEN 0 AND 2147483647)),
    CONSTRAINT zego_user_count_not_negative   CHECK (user_count IS NULL OR (typeof(user_count) = 'integer' AND user_count >= 0)),
    CONSTRAINT zego_user_count_source_known   CHECK (user_count_source IN ('app', 'callback', 'api')),
    CONSTRAINT zego_status_known              CHECK (status IN ('active', 'stopped', 'gone', 'auto_stopped', 'failed', 'released')),
    CONSTRAINT zego_hold_until_is_a_time      CHECK (hold_until IS NULL OR coalesce(hold_until LIKE '____-%' AND julianday(hold_until) >= julianday('1970-01-01'), 0)),
    CONSTRAINT zego_started_at_is_a_time      CHECK (coalesce(started_at LIKE '____-%' AND julianday(started_at) BETWEEN julianday('1970-01-01') AND julianday('9000-01-01'), 0)),
    CONSTRAINT zego_user_count_at_is_a_time   CHECK (user_count_at IS NULL OR coalesce(user_count_at LIKE '____-%' AND julianday(user_count_at) >= julianday('1970-01-01'), 0)),
    CONSTRAINT zego_ended_at_is_a_time        CHECK (ended_at IS NULL OR coalesce(ended_at LIKE '____-%' AND julianday(ended_at) >= julianday('1970-01-01'), 0))
)
--;
CREATE TABLE zego_stop_attempts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id         TEXT NOT NULL,
    kind            TEXT NOT NULL,
    app_id          BIGINT,
    room_id         TEXT NOT NULL,
    attempt         INTEGER,
    reason          TEXT NOT NULL,
    evidence_source TEXT,
    evidence_at     TEXT,
    empty_since     TEXT,
    due_at          TEXT,
    auto_stop_at    TEXT,
    sent_at         TEXT,
    replied_at      TEXT,
    http_status     INTEGER,
    code            TEXT,
    message         TEXT,
    request_id      TEXT,
    outcome         TEXT NOT NULL,
    detail          TEXT,
    instance        TEXT NOT NULL,
    recorded_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')),
    CONSTRAINT zego_outcome_known CHECK (outcome IN ('sent', 'stopped', 'gone', 'stopped_earlier', 'auto_stopped', 'retry', 'unknown', 'rejected', 'blocked', 'spared', 'withheld', 'would_stop'))
)
--;
CREATE TABLE zego_daemons (
    instance       TEXT PRIMARY KEY NOT NULL,
    host           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    version        TEXT NOT NULL,
    mode           TEXT NOT NULL,
    started_at     TEXT NOT NULL,
    watching_since TEXT NOT NULL,
    seen_at        TEXT NOT NULL
)
--;
-- Apply a hint on insert. The daemon's columns get their initial values, whatever the statement says.
CREATE TRIGGER zego_tasks_inserted AFTER INSERT ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        started_at        = strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at),
        hold_until        = strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until),
        user_count_at     = CASE WHEN NEW.user_count IS NOT NULL THEN
                                min(coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
                                    strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
        user_count_source = CASE WHEN NEW.user_count IS NOT NULL THEN coalesce(NEW.user_count_source, 'app') END,
        last_occupied_at  = NULL,
        empty_since       = NULL,
        due_at            = NULL,
        auto_stop_at      = NULL,
        wake_at           = NULL,
        claimed_by        = NULL,
        attempts          = 0,
        ended_at          = CASE WHEN NEW.status <> 'active' THEN
                                coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END
    WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        last_occupied_at = CASE WHEN user_count > 0 THEN user_count_at END,
        empty_since      = CASE WHEN user_count = 0 THEN user_count_at END
    WHERE task_id = NEW.task_id;
END
--;
-- A final status never changes: the statement skips the row of an ended task.
CREATE TRIGGER zego_tasks_final BEFORE UPDATE OF status ON zego_tasks
WHEN OLD.status <> 'active' AND NEW.status <> OLD.status
BEGIN
    SELECT RAISE(IGNORE);
END
--;
-- An observation older than the stored one is ignored: the statement skips the row.
CREATE TRIGGER zego_tasks_stale_hint BEFORE UPDATE OF user_count ON zego_tasks
WHEN NEW.status = OLD.status AND strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) < OLD.user_count_at
BEGIN
    SELECT RAISE(IGNORE);
END
--;
-- Apply a hint on update. SQL cannot tell a missing time from an unchanged one: both mean now.
-- While a claim is held, wake_at is the end of its lease and stays.
CREATE TRIGGER zego_tasks_hinted AFTER UPDATE OF user_count ON zego_tasks
BEGIN
    UPDATE zego_tasks SET
        user_count_at     = CASE WHEN NEW.user_count_at IS NULL OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at
                                 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now')
                                 ELSE min(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')) END,
        user_count_source = CASE WHEN NEW.user_count IS NOT NULL THEN
                                 CASE WHEN NEW.user_count_source IS NULL
                                        OR (NEW.user_count_source IS OLD.user_count_source
                                            AND (NEW.user_count_at IS NULL OR strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at) IS OLD.user_count_at))
                                      THEN 'app' ELSE NEW.user_count_source END END
    WHERE task_id = NEW.task_id;
    UPDATE zego_tasks SET
        last_occupied_at = CASE WHEN user_count > 0 THEN user_count_at ELSE last_occupied_at END,
        empty_since      = CASE WHEN user_count = 0 THEN
                                CASE WHEN OLD.user_count IS 0 AND empty_since IS NOT NULL THEN empty_since ELSE user_count_at END END,
        due_at           = CASE WHEN user_count = 0 THEN due_at END,
        auto_stop_at     = CASE WHEN user_count = 0 THEN auto_stop_at END,
        wake_at          = CASE WHEN user_count = 0 OR claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id;
END
--;
-- Convert times to the form that sorts. An observation is never in the future.
CREATE TRIGGER zego_tasks_dated AFTER UPDATE OF hold_until, started_at, user_count_at, ended_at ON zego_tasks
WHEN NEW.hold_until IS NOT strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until)
    OR NEW.started_at IS NOT strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at)
    OR NEW.user_count_at IS NOT min(strftime('%Y-%m-%d %H:%M:%f000', NEW.user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now'))
    OR NEW.ended_at IS NOT strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at)
BEGIN
    UPDATE zego_tasks SET
        hold_until    = strftime('%Y-%m-%d %H:%M:%f000', hold_until),
        started_at    = strftime('%Y-%m-%d %H:%M:%f000', started_at),
        user_count_at = min(strftime('%Y-%m-%d %H:%M:%f000', user_count_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
        ended_at      = strftime('%Y-%m-%d %H:%M:%f000', ended_at)
    WHERE task_id = NEW.task_id;
END
--;
-- A changed hold or time limit needs a new plan. While a claim is held, wake_at is the end of its lease.
CREATE TRIGGER zego_tasks_replan AFTER UPDATE OF hold_until, grace_seconds, max_idle_seconds, started_at ON zego_tasks
WHEN NEW.grace_seconds IS NOT OLD.grace_seconds OR NEW.max_idle_seconds IS NOT OLD.max_idle_seconds
    OR strftime('%Y-%m-%d %H:%M:%f000', NEW.hold_until) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.hold_until)
    OR strftime('%Y-%m-%d %H:%M:%f000', NEW.started_at) IS NOT strftime('%Y-%m-%d %H:%M:%f000', OLD.started_at)
BEGIN
    UPDATE zego_tasks SET
        due_at       = NULL,
        auto_stop_at = NULL,
        wake_at      = CASE WHEN claimed_by IS NOT NULL THEN wake_at END
    WHERE task_id = NEW.task_id;
END
--;
CREATE TRIGGER zego_tasks_ended AFTER UPDATE OF status ON zego_tasks
WHEN OLD.status = 'active' AND NEW.status <> 'active'
BEGIN
    UPDATE zego_tasks SET
        ended_at   = coalesce(strftime('%Y-%m-%d %H:%M:%f000', NEW.ended_at), strftime('%Y-%m-%d %H:%M:%f000', 'now')),
        wake_at    = NULL,
        claimed_by = NULL
    WHERE task_id = NEW.task_id;
END
--;
CREATE TRIGGER zego_stop_attempts_append_only BEFORE UPDATE ON zego_stop_attempts
WHEN OLD.outcome <> 'sent'
BEGIN
    SELECT RAISE(ABORT, 'zego_stop_attempts: a row is never updated after its final outcome');
END
--;
CREATE VIEW zego_stop_history AS
SELECT
    h.task_id, h.room_id, h.app_id, h.kind, h.reason, h.outcome, h.code, h.message, h.request_id, h.attempts,
    h.empty_since, h.due_at, h.stopped_at, h.auto_stop_at,
    round((julianday(h.stopped_at) - julianday(h.due_at)) * 86400.0, 3) AS reaction_seconds,
    round((julianday(h.auto_stop_at) - julianday(h.stopped_at)) * 86400.0, 3) AS seconds_before_auto_stop
FROM (
    SELECT
        a.*,
        (SELECT coalesce(max(n.attempt), 0) FROM zego_stop_attempts AS n WHERE n.task_id = a.task_id) AS attempts,
        CASE WHEN a.outcome IN ('stopped', 'stopped_earlier') THEN a.replied_at END AS stopped_at
    FROM zego_stop_attempts AS a
    WHERE NOT EXISTS (SELECT 1 FROM zego_stop_attempts AS later WHERE later.task_id = a.task_id AND later.id > a.id)
) AS h
