import { closeSync, fsyncSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";
import { databaseFault } from "./fault.ts";
import { migrations } from "./migration.ts";

/**
 * More writes than this in one transaction would hold the event loop for more than about 5 ms; the rest waits for the
 * next turn.
 */
const batchLimit = 256;

/** The log is cut back to this size at checkpoints, so that one burst does not keep its space for ever. */
const logLimitBytes = 16 * 2 ** 20;

/**
 * The one SQLite file of a home, shared by the store and the events, with one writer: us.
 *
 * Commits are grouped: every write that was asked for in the same turn of the event loop goes into one transaction and
 * one fsync, and resolves after it. The fsync runs on the main thread: here it takes 0.3 ms, less than handing the work
 * to a thread and hearing back, and a thread would cost 10 MiB.
 *
 * The file is locked for the life of the process, so it needs no shared memory beside it, and a second daemon gets a
 * `conflict` that names the first.
 */
export class Database implements Disposable {
  readonly path: string;
  readonly #connection: DatabaseSync;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #savepoint: StatementSync;
  readonly #undo: StatementSync;
  readonly #release: StatementSync;
  #queue: Write[] = [];
  #scheduled = false;

  /**
   * Opens or creates the file, mode 0600, and brings its schema up to date. Throws `conflict` when another process has
   * it, `unsupported` when a newer release wrote it, `corrupt`, `exhausted` or `forbidden` by what is wrong with it.
   */
  static open(path: string): Database {
    let connection: DatabaseSync | undefined;
    try {
      // SQLite would create the file with the umask's mode; its log inherits the mode we give here.
      closeSync(openSync(path, "a", 0o600));
      connection = new DatabaseSync(path);
      connection.exec(`
        pragma locking_mode = exclusive;
        pragma journal_mode = wal;
        pragma synchronous = full;
        pragma journal_size_limit = ${logLimitBytes};
      `);
      migrate(connection, path);
      syncDirectory(dirname(path));
      return new Database(path, connection);
    } catch (thrown) {
      if (connection?.isOpen === true) connection.close();
      throw databaseFault(thrown, "open the database", path);
    }
  }

  private constructor(path: string, connection: DatabaseSync) {
    this.path = path;
    this.#connection = connection;
    this.#begin = connection.prepare("begin immediate");
    this.#commit = connection.prepare("commit");
    this.#savepoint = connection.prepare("savepoint one");
    this.#undo = connection.prepare("rollback to one");
    this.#release = connection.prepare("release one");
  }

  /** A statement to keep. */
  prepare(sql: string): StatementSync {
    return this.#connection.prepare(sql);
  }

  /** Runs `action`, which only reads, at once. It sees what was committed and nothing else. */
  read<Result>(attempted: string, action: () => Result): Result {
    this.#checkOpen(attempted);
    try {
      return action();
    } catch (thrown) {
      throw databaseFault(thrown, attempted, this.path);
    }
  }

  /**
   * Runs `action` in the next transaction and resolves with what it returned once that is on the disk. When `action`
   * throws, what it wrote is undone and nothing else of the transaction is.
   */
  write<Result>(attempted: string, action: () => Result): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#checkOpen(attempted);
      const perform = (): (() => void) => {
        const result = action();
        return () => resolve(result);
      };
      this.#queue.push({ attempted, perform, reject });
      this.#schedule();
    });
  }

  /** Commits what is still waiting and closes the file. */
  close(): void {
    if (!this.#connection.isOpen) return;
    while (this.#queue.length > 0) this.#commitBatch();
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #checkOpen(attempted: string): void {
    if (!this.#connection.isOpen) throw new Fault("unavailable", `${attempted}: the database is closed`);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#queue.length > 0) this.#commitBatch();
      if (this.#queue.length > 0) this.#schedule();
    });
  }

  #commitBatch(): void {
    const batch = this.#queue.splice(0, batchLimit);
    let settlements: readonly (() => void)[];
    try {
      this.#begin.run();
      settlements = batch.map((write) => this.#perform(write));
      this.#commit.run();
    } catch (thrown) {
      if (this.#connection.isTransaction) this.#connection.exec("rollback");
      for (const { attempted, reject } of batch) reject(databaseFault(thrown, attempted, this.path));
      return;
    }
    for (const settle of settlements) settle();
  }

  /** Performs one write of a batch; what it returns tells the caller, once the batch is committed. */
  #perform({ attempted, perform, reject }: Write): () => void {
    this.#savepoint.run();
    try {
      const settle = perform();
      this.#release.run();
      return settle;
    } catch (thrown) {
      // On a full disk or an I/O error SQLite itself may have given up the whole transaction.
      if (!this.#connection.isTransaction) throw thrown;
      this.#undo.run();
      this.#release.run();
      return () => reject(databaseFault(thrown, attempted, this.path));
    }
  }
}

interface Write {
  readonly attempted: string;
  readonly perform: () => () => void;
  readonly reject: (fault: Fault) => void;
}

function migrate(connection: DatabaseSync, path: string): void {
  const version = Number(connection.prepare("pragma user_version").get()?.["user_version"]);
  if (version > migrations.length) {
    throw new Fault("unsupported", `open the database: a newer release of Croft wrote ${path}`, {
      hint: "start that release again, or restore the backup made before the upgrade",
      detail: { path, version: String(version), known: String(migrations.length) },
    });
  }
  if (version === migrations.length) return;
  connection.exec(
    `begin immediate; ${migrations.slice(version).join(";")}; pragma user_version = ${migrations.length}; commit`,
  );
}

/** Makes the names in a directory durable: a new file's content survives a power cut, its name only after this. */
function syncDirectory(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
