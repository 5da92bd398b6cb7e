/**
 * The schema of `croft.db`, one step per release that changed it. A step is never edited once released: the file's
 * `user_version` counts how many were applied.
 */
export const migrations: readonly string[] = [
  `
  -- One row per key. A removed key stays for a while, with a null value, so that watchers learn of the removal.
  create table entry (
    key text primary key,
    value text,
    revision integer not null
  ) strict, without rowid;
  create unique index entry_by_revision on entry (revision);
  create index entry_removed on entry (revision) where value is null;

  -- The single row says up to which revision removals were forgotten.
  create table forgotten (revision integer not null) strict;
  insert into forgotten values (0);

  create table event (
    sequence integer primary key,
    time_ms integer not null,
    kind text not null,
    subject text not null,
    message text not null,
    detail text
  ) strict;
  `,
];
