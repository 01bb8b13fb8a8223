/* Commits a batch to SQLite without the interpreter's lock, from its first row to the disk's answer.
 *
 * Through the module sqlite3 each statement of a commit gives the lock up and waits for it again, and so does each look
 * at the files; under load every one of those waits for the event loop. Here the rows are gathered under the lock, then
 * it is let go once.
 *
 * SQLite's functions are those of the library that the module sqlite3 has loaded itself, since two copies of SQLite in
 * a process end each other's locks on a file. Where they can't be had, there is no Committer.
 *
 * It does the plain case alone. Whatever goes wrong is taken back and left to the ordinary way, which commits the same
 * batch again or says what is wrong.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* -- SQLite ------------------------------------------------------------------------------------------------- */

enum { OK = 0, ROW = 100, DONE = 101 };
enum { OPEN_READWRITE = 0x2, OPEN_URI = 0x40, OPEN_NOMUTEX = 0x8000 };
enum { PREPARE_PERSISTENT = 1 };

struct database;
struct statement;

static struct {
    int (*open_v2)(const char *, struct database **, int, const char *);
    int (*close_v2)(struct database *);
    int (*exec)(struct database *, const char *, void *, void *, void *);
    int (*prepare_v3)(struct database *, const char *, int, unsigned, struct statement **, const char **);
    int (*bind_int64)(struct statement *, int, long long);
    int (*bind_double)(struct statement *, int, double);
    int (*bind_blob)(struct statement *, int, const void *, int, void (*)(void *));
    int (*step)(struct statement *);
    int (*reset)(struct statement *);
    int (*finalize)(struct statement *);
    const unsigned char *(*column_text)(struct statement *, int);
    long long (*column_int64)(struct statement *, int);
    int (*threadsafe)(void);
} sqlite;

static const struct {
    const char *name;
    void *place;
} FUNCTIONS[] = {
    {"sqlite3_open_v2", &sqlite.open_v2},         {"sqlite3_close_v2", &sqlite.close_v2},
    {"sqlite3_exec", &sqlite.exec},               {"sqlite3_prepare_v3", &sqlite.prepare_v3},
    {"sqlite3_bind_int64", &sqlite.bind_int64},   {"sqlite3_bind_double", &sqlite.bind_double},
    {"sqlite3_bind_blob", &sqlite.bind_blob},     {"sqlite3_step", &sqlite.step},
    {"sqlite3_reset", &sqlite.reset},             {"sqlite3_finalize", &sqlite.finalize},
    {"sqlite3_column_text", &sqlite.column_text}, {"sqlite3_column_int64", &sqlite.column_int64},
    {"sqlite3_threadsafe", &sqlite.threadsafe},
};

/* Finds SQLite's functions in what the module at `path` has loaded; raises ImportError if they are not there. */
static int find_sqlite(const char *path)
{
    void *module = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (!module) {
        PyErr_Format(PyExc_ImportError, "%s is not loaded", path);
        return -1;
    }
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        void *function = dlsym(module, FUNCTIONS[i].name);
        if (!function) {
            PyErr_Format(PyExc_ImportError, "%s has no %s to give", path, FUNCTIONS[i].name);
            return -1;
        }
        memcpy(FUNCTIONS[i].place, &function, sizeof function);
    }
    if (!sqlite.threadsafe()) {
        PyErr_SetString(PyExc_ImportError, "SQLite is not for several threads here");
        return -1;
    }
    return 0;
}

/* -- what is committed -------------------------------------------------------------------------------------- */

/* The fields of a StoredJob in the order of the columns. */
enum field { NUMBER, POSITION, FUNCTION, UNIQUE, WORKLOAD, SIZE, PRIORITY, DUE, REDUCER, ATTEMPTS, CREATED, FIELDS };

static const char *const NAMES[FIELDS] = {
    "number", "position", "function", "unique", "workload", "size", "priority", "due", "reducer", "attempts", "created",
};
static PyObject *names[FIELDS];

union value {
    long long integer;
    double real;
    PyObject *bytes;            /* held until the commit is over */
};

static bool is_bytes(enum field field)
{
    return field == FUNCTION || field == UNIQUE || field == WORKLOAD || field == REDUCER;
}

static bool is_real(enum field field)
{
    return field == DUE || field == CREATED;
}

struct batch {
    union value (*rows)[FIELDS];
    Py_ssize_t added, gathered; /* rows, and values of them that are filled in */
    long long *removed;
    Py_ssize_t removals;
};

static void drop_batch(struct batch *batch)
{
    for (Py_ssize_t i = 0; i < batch->gathered; i++)
        if (is_bytes(i % FIELDS))
            Py_DECREF(batch->rows[i / FIELDS][i % FIELDS].bytes);
    PyMem_Free(batch->rows);
    PyMem_Free(batch->removed);
}

static int gather_row(struct batch *batch, PyObject *job, union value *row)
{
    for (enum field field = 0; field < FIELDS; field++) {
        PyObject *value = PyObject_GetAttr(job, names[field]);
        if (!value)
            return -1;
        if (is_bytes(field)) {
            if (!PyBytes_Check(value) || PyBytes_GET_SIZE(value) > INT32_MAX) {
                Py_DECREF(value);
                PyErr_Format(PyExc_TypeError, "%s is not as it is kept", NAMES[field]);
                return -1;
            }
            row[field].bytes = value;
            batch->gathered++;
            continue;
        }
        if (is_real(field))
            row[field].real = PyFloat_AsDouble(value);
        else
            row[field].integer = PyLong_AsLongLong(value);
        Py_DECREF(value);
        if (PyErr_Occurred())
            return -1;
        batch->gathered++;
    }
    return 0;
}

static int by_number(const void *left, const void *right)
{
    long long a = *(const long long *)left, b = *(const long long *)right;
    return (a > b) - (a < b);
}

static int gather(struct batch *batch, PyObject *added, PyObject *removed)
{
    Py_ssize_t rows = PyList_GET_SIZE(added), removals = PyList_GET_SIZE(removed);
    batch->rows = PyMem_Malloc((rows ? rows : 1) * sizeof *batch->rows);
    batch->removed = PyMem_Malloc((removals ? removals : 1) * sizeof *batch->removed);
    if (!batch->rows || !batch->removed) {
        PyErr_NoMemory();
        return -1;
    }
    for (; batch->added < rows; batch->added++)
        if (gather_row(batch, PyList_GET_ITEM(added, batch->added), batch->rows[batch->added]) < 0)
            return -1;
    for (; batch->removals < removals; batch->removals++) {
        batch->removed[batch->removals] = PyLong_AsLongLong(PyList_GET_ITEM(removed, batch->removals));
        if (PyErr_Occurred())
            return -1;
    }
    return 0;
}

/* -- the files ---------------------------------------------------------------------------------------------- */

/* What `SQLite.verify` and `SQLite._see_that_they_are_whole` look at, in Python; the two must say the same. */

static const char FILE_BEGINS[] = "SQLite format 3";    /* and a NUL */
static const char LOG_BEGINS[] = {0x37, 0x7f, 0x06};

enum { LOG_HEAD = 32, SALTS_AT = 16, SALTS = 8 };

struct log_state {
    char salts[SALTS];
    Py_ssize_t known;           /* bytes of the salts */
    long long size;
};

enum outcome { COMMITTED = 0, UNTOUCHED = 1, UNSURE = 2, EMPTIED = 3 };

/* -- the type ----------------------------------------------------------------------------------------------- */

enum query { BEGIN, QUESTION, INSERT, DELETE, LATEST, COMMIT, ROLLBACK, QUERIES };

enum { FILES = 3 };             /* the file, its log and the log's index */

typedef struct {
    PyObject_HEAD
    struct database *database;
    struct statement *statements[QUERIES];
    PyObject *paths[FILES];     /* bytes; the name of each ... */
    unsigned long long devices[FILES], inodes[FILES];   /* ... must mean this file */
    bool is_there[FILES];
    int file, log;              /* descriptors; the log's is -1 where there is none */
} Committer;

/* As Python's os.pread, but that a short answer is no error. */
static bool is_whole(const Committer *self, struct log_state *state, enum outcome *outcome)
{
    if (self->log >= 0) {
        char head[LOG_HEAD];
        ssize_t got = pread(self->log, head, sizeof head, 0);
        struct stat status;
        if (got < 0 || fstat(self->log, &status) < 0)
            return false;
        if (got > 0 && (got < LOG_HEAD || memcmp(head, LOG_BEGINS, sizeof LOG_BEGINS)))
            *outcome = EMPTIED;
        Py_ssize_t known = got < SALTS_AT + SALTS ? (got > SALTS_AT ? got - SALTS_AT : 0) : SALTS;
        if (known == state->known && !memcmp(head + SALTS_AT, state->salts, (size_t)known)
            && status.st_size < state->size)
            *outcome = EMPTIED;
        memcpy(state->salts, head + SALTS_AT, (size_t)known);
        state->known = known;
        state->size = status.st_size;
    }
    char start[sizeof FILE_BEGINS];
    ssize_t got = pread(self->file, start, sizeof start, 0);
    if (got < 0)
        return false;
    if (got < (ssize_t)sizeof start || memcmp(start, FILE_BEGINS, sizeof start))
        *outcome = EMPTIED;
    return *outcome != EMPTIED;
}

static bool names_mean_the_files(const Committer *self)
{
    for (int i = 0; i < FILES; i++) {
        struct stat status;
        bool is_there = stat(PyBytes_AS_STRING(self->paths[i]), &status) == 0;
        if (is_there != self->is_there[i]
            || (is_there && (status.st_dev != self->devices[i] || status.st_ino != self->inodes[i])))
            return false;
    }
    return true;
}

/* Carries a statement out to its end. */
static bool carry_out(struct statement *statement)
{
    int code = sqlite.step(statement);
    return sqlite.reset(statement) == OK && (code == DONE || code == ROW);
}

/* Whether the place is ours and the witness is there. */
static bool is_ours(const Committer *self, const char *user, long long witness)
{
    struct statement *question = self->statements[QUESTION];
    bool ours = false;
    if (sqlite.bind_int64(question, 1, witness) == OK && sqlite.step(question) == ROW) {
        const unsigned char *owner = sqlite.column_text(question, 0);
        ours = owner && !strcmp((const char *)owner, user) && (witness < 0 || sqlite.column_int64(question, 1));
    }
    return sqlite.reset(question) == OK && ours;
}

static bool insert(struct statement *statement, const union value *row)
{
    for (enum field field = 0; field < FIELDS; field++) {
        int at = (int)field + 1, code;
        if (is_bytes(field))
            code = sqlite.bind_blob(statement, at, PyBytes_AS_STRING(row[field].bytes),
                                    (int)PyBytes_GET_SIZE(row[field].bytes), NULL);
        else if (is_real(field))
            code = sqlite.bind_double(statement, at, row[field].real);
        else
            code = sqlite.bind_int64(statement, at, row[field].integer);
        if (code != OK)
            return false;
    }
    return carry_out(statement);
}

static bool change(const Committer *self, struct batch *batch)
{
    for (Py_ssize_t i = 0; i < batch->added; i++)
        if (!insert(self->statements[INSERT], batch->rows[i]))
            return false;
    /* Jobs end about in the order of their numbers, so whole ranges go at once. */
    qsort(batch->removed, (size_t)batch->removals, sizeof *batch->removed, by_number);
    struct statement *delete = self->statements[DELETE];
    for (Py_ssize_t first = 0, last; first < batch->removals; first = last + 1) {
        last = first;
        while (last + 1 < batch->removals && batch->removed[last + 1] - batch->removed[last] <= 1)
            last++;
        if (sqlite.bind_int64(delete, 1, batch->removed[first]) != OK
            || sqlite.bind_int64(delete, 2, batch->removed[last]) != OK || !carry_out(delete))
            return false;
    }
    return true;
}

static bool look_for_latest(const Committer *self, long long *witness)
{
    struct statement *latest = self->statements[LATEST];
    bool found = sqlite.step(latest) == ROW;
    if (found)
        *witness = sqlite.column_int64(latest, 0);
    return sqlite.reset(latest) == OK && found;
}

/* The commit, without the interpreter's lock. `latest`: the next witness is to be looked for, else it stays. */
static enum outcome commit(const Committer *self, struct batch *batch, const char *user, long long *witness,
                           bool latest, struct log_state *state)
{
    enum outcome outcome = UNTOUCHED;
    if (!carry_out(self->statements[BEGIN]))
        return outcome;
    bool ready = is_whole(self, state, &outcome)        /* after the commit, a hole may stand for what was cut */
                 && is_ours(self, user, *witness) && change(self, batch)
                 && (!latest || look_for_latest(self, witness));
    if (ready)
        outcome = UNSURE;
    if (!ready || !carry_out(self->statements[COMMIT])) {
        carry_out(self->statements[ROLLBACK]);
        return outcome;
    }
    if (is_whole(self, state, &outcome) && names_mean_the_files(self))
        outcome = COMMITTED;
    return outcome;
}

static PyObject *Committer_commit(Committer *self, PyObject *arguments)
{
    PyObject *added, *removed;
    const char *user, *salts;
    long long witness;
    int latest;
    struct log_state state = {0};
    struct batch batch = {0};
    if (!PyArg_ParseTuple(arguments, "O!O!sLpy#L", &PyList_Type, &added, &PyList_Type, &removed, &user, &witness,
                          &latest, &salts, &state.known, &state.size))
        return NULL;
    if (!self->database || state.known > SALTS) {
        PyErr_SetString(PyExc_ValueError, self->database ? "no salts are so long" : "it is closed");
        return NULL;
    }
    memcpy(state.salts, salts, (size_t)state.known);
    if (gather(&batch, added, removed) < 0) {
        drop_batch(&batch);
        return NULL;
    }
    enum outcome outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = commit(self, &batch, user, &witness, latest, &state);
    Py_END_ALLOW_THREADS
    drop_batch(&batch);
    return Py_BuildValue("iLy#L", (int)outcome, witness, state.salts, state.known, state.size);
}

static PyObject *Committer_close(Committer *self, PyObject *Py_UNUSED(nothing))
{
    for (enum query query = 0; query < QUERIES; query++) {
        sqlite.finalize(self->statements[query]);
        self->statements[query] = NULL;
    }
    struct database *database = self->database;
    self->database = NULL;
    Py_BEGIN_ALLOW_THREADS
    sqlite.close_v2(database);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static void Committer_dealloc(Committer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(Committer_close(self, NULL));
    for (int i = 0; i < FILES; i++)
        Py_XDECREF(self->paths[i]);
    type->tp_free(self);
    Py_DECREF(type);
}

static int prepare(Committer *self, enum query query, const char *sql)
{
    if (sqlite.prepare_v3(self->database, sql, -1, PREPARE_PERSISTENT, &self->statements[query], NULL) == OK)
        return 0;
    PyErr_Format(PyExc_OSError, "SQLite does not take %s", sql);
    return -1;
}

static int take_file(Committer *self, int i, PyObject *path, PyObject *identity)
{
    Py_INCREF(path);
    self->paths[i] = path;
    self->is_there[i] = identity != Py_None;
    return self->is_there[i] ? PyArg_ParseTuple(identity, "KK", &self->devices[i], &self->inodes[i]) ? 0 : -1 : 0;
}

static PyObject *Committer_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    const char *module, *uri, *greeting, *queries[QUERIES] = {[BEGIN] = "BEGIN IMMEDIATE", [COMMIT] = "COMMIT",
                                                             [ROLLBACK] = "ROLLBACK"};
    PyObject *paths[FILES], *identities[FILES];
    int file, log;
    if (!PyArg_ParseTuple(arguments, "sss(ssss)(SSS)(OOO)ii", &module, &uri, &greeting, &queries[QUESTION],
                          &queries[INSERT], &queries[DELETE], &queries[LATEST], &paths[0], &paths[1], &paths[2],
                          &identities[0], &identities[1], &identities[2], &file, &log)
        || find_sqlite(module) < 0)
        return NULL;
    Committer *self = (Committer *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->file = file;
    self->log = log;
    for (int i = 0; i < FILES; i++)
        if (take_file(self, i, paths[i], identities[i]) < 0)
            goto fail;
    if (sqlite.open_v2(uri, &self->database, OPEN_READWRITE | OPEN_URI | OPEN_NOMUTEX, NULL) != OK
        || sqlite.exec(self->database, greeting, NULL, NULL, NULL) != OK) {
        PyErr_Format(PyExc_OSError, "SQLite does not open %s", uri);
        goto fail;
    }
    for (enum query query = 0; query < QUERIES; query++)
        if (prepare(self, query, queries[query]) < 0)
            goto fail;
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static PyMethodDef methods[] = {
    {"commit", (PyCFunction)Committer_commit, METH_VARARGS, NULL},
    {"close", (PyCFunction)Committer_close, METH_NOARGS, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Committer_new},
    {Py_tp_dealloc, Committer_dealloc},
    {Py_tp_methods, methods},
    {0},
};

static PyType_Spec specification = {
    "geartrain.store.sql.sqlite_commit.Committer", sizeof(Committer), 0, Py_TPFLAGS_DEFAULT, slots,
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "sqlite_commit", NULL, -1, NULL};

PyMODINIT_FUNC PyInit_sqlite_commit(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module ? PyType_FromSpec(&specification) : NULL;
    for (enum field field = 0; type && field < FIELDS; field++)
        if (!(names[field] = PyUnicode_InternFromString(NAMES[field])))
            Py_CLEAR(type);
    if (!type || PyModule_AddObject(module, "Committer", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
