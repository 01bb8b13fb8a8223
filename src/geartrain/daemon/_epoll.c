/* The sockets of the job server, driven without an object or a call for each step: one wait for all of them, one read
 * for each that has something, one write for each that is to get something.
 *
 * A Poll waits for two kinds of descriptors at once. Those of asyncio (listeners, signals, threads, whatever extensions
 * open) it gives back to the event loop, which called it instead of its own selector. Its own, the Sockets, it serves
 * itself: what was read goes straight to JobServer.receive, and when all are read, what the peers are to get is taken
 * from their outboxes and written. It stays here, turn after turn, until asyncio has something to do.
 *
 * A Socket is a transport as asyncio knows it, and its protocol is a daemon.connection.Connection. While `direct` holds,
 * which the protocol sets, the protocol is not asked for each read and write; all that is rare goes through it.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_EVENTS = 1024,
    READ_SIZE = 256 * 1024,  /* at most from one socket in a turn */
    MOST_BUFFERS = 64,       /* in one write */
    FIRST_READ = 20 * 1024,  /* behind a packet that was read into place: enough of the next one to make it a place */
    MOST_PLACES = 64 * 1024 * 1024, /* bytes allocated for packets that are read into place, of all sockets together */
    STALLED = 1,             /* what JobServer.receive tells; see there */
    UNANSWERED = 2,
    COLLECTING = 3,
};

/* What is asked of other objects, made once. */
static PyObject *str_write, *str_timer_at, *str_look_after, *str_data_received, *str_eof_received, *str_pause_writing,
    *str_resume_writing, *str_connection_lost, *str_call_soon, *str_settle, *str_failed, *str_open_iteration,
    *str_parser, *str_wanted, *str_begun, *str_came, *str_complete, *str_lease_over;

#define SPIN_SECONDS 20e-6

struct socket;

typedef struct {
    PyObject_HEAD
    Py_ssize_t places;       /* bytes of all packets that are being read into place */
    bool spins;              /* see wait_for_events */
    int skip, failures;
    double lease_ends;       /* when the daemon is to be told before anything is written; 0: never */
    int fd;                  /* of the epoll; the selector's, which closes it */
    char open;               /* whether an iteration is open, whoever opened it */
    bool served;             /* a socket of ours has something to do with it */
    bool interrupted;        /* asyncio has something to do */
    bool always_settle;      /* there are extensions that want to be called in each iteration */
    struct socket *serving;  /* the one whose events are being dealt with */
    struct socket **sockets; /* by descriptor */
    int room;                /* in sockets */
    PyObject *daemon, *loop, *output, *touched;
    PyObject *take_ready, *receive, *tick, *monotonic, *time, *has_news;
    struct epoll_event events[MOST_EVENTS];
    char buffer[READ_SIZE];
} Poll;

typedef struct socket {
    PyObject_HEAD
    Poll *poll;
    PyObject *protocol, *peer;
    PyObject *place;         /* the last argument of a large packet, as bytes that are being read into place */
    Py_ssize_t filled;       /* bytes of it that have come */
    PyObject *error;         /* what the protocol is to hear of the end */
    PyObject *unsent;        /* a list of buffers that the kernel has not taken; NULL: none */
    Py_ssize_t unsent_size;  /* bytes of them */
    Py_ssize_t cut;          /* bytes of the first one that it has taken */
    Py_ssize_t high;         /* bytes from which on the protocol is to pause */
    int fd;
    uint32_t watched;        /* what the epoll looks for; 0: it does not know this socket */
    char direct;             /* reads and writes need not go through the protocol */
    char opens_iteration;    /* what the protocol is given to read, it gives to the job server at once */
    char is_tcp;
    char reading;            /* what comes is wanted */
    char at_end;             /* the peer sends no more */
    char closing;            /* nothing is read or given to the protocol any more */
    char eof;                /* our side is to be shut when all is sent */
    char full;               /* the protocol has been told to pause */
    char was_large;          /* the last packet was read into place */
} Socket;

static PyTypeObject Poll_type, Socket_type;

/* ── sockets ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

static bool is_over(Socket *self) { return self->fd < 0 || self->poll->sockets[self->fd] != self; }

static void leave_place(Socket *self);
static void lose(Socket *self, PyObject *error);

static void lose_by_errno(Socket *self, int number) {
    PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", number, strerror(number));
    if (error == NULL)
        PyErr_Clear();
    lose(self, error ? error : Py_None);
    Py_XDECREF(error);
}

/* Have the epoll look for what is wanted of a socket. Where that is nothing it must not know the socket at all, since
 * it tells of errors and hang-ups unasked. */
static void watch(Socket *self) {
    if (self->fd < 0)
        return;
    uint32_t wanted = 0;
    if (!self->closing && self->reading && !self->at_end)
        wanted |= EPOLLIN;
    if (self->unsent != NULL)
        wanted |= EPOLLOUT;
    if (wanted == self->watched)
        return;
    struct epoll_event event = {.events = wanted, .data.fd = self->fd};
    int operation = !wanted ? EPOLL_CTL_DEL : self->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int failed = epoll_ctl(self->poll->fd, operation, self->fd, &event);
    if (failed && wanted) /* the kernel has no room for it: nothing would be heard of it any more */
        lose_by_errno(self, errno);
    else
        self->watched = wanted;
}

/* The connection is over. The protocol hears of it when what is going on now has come to its end, and the descriptor,
 * by which logs name it, is closed then. */
static void lose(Socket *self, PyObject *error) {
    Poll *poll = self->poll;
    if (is_over(self))
        return;
    Py_CLEAR(self->unsent);
    self->unsent_size = self->cut = 0;
    leave_place(self);
    self->closing = 1;
    self->direct = 0;
    watch(self);
    poll->sockets[self->fd] = NULL;
    if (self->protocol == NULL) { /* it was not wanted; its descriptor may be the last one */
        close(self->fd);
        self->fd = -1;
        Py_DECREF(self);
        return;
    }
    if (poll->serving == self) {
        Py_INCREF(error);
        Py_XSETREF(self->error, error);
        Py_DECREF(self);
        return;
    }
    PyObject *later = PyObject_GetAttrString((PyObject *)self, "_lost");
    PyObject *done = later ? PyObject_CallMethodObjArgs(poll->loop, str_call_soon, later, error, NULL) : NULL;
    if (done == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(done);
    Py_XDECREF(later);
    Py_DECREF(self); /* the table's */
}

/* Something has raised on behalf of a socket, of an outlet of another kind, or of nobody: the daemon is told, and whose
 * fault it was is dropped. False if it is to end all. */
static bool failed(Poll *self, PyObject *whose) {
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return false;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    bool is_socket = Py_IS_TYPE(whose, &Socket_type);
    PyObject *told = PyObject_CallMethodObjArgs(self->daemon, str_failed, value, is_socket ? Py_None : whose, NULL);
    if (told == NULL)
        PyErr_WriteUnraisable(whose);
    Py_XDECREF(told);
    if (is_socket)
        lose((Socket *)whose, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return true;
}

static bool call(PyObject *of, PyObject *method) {
    PyObject *done = PyObject_CallMethodNoArgs(of, method);
    Py_XDECREF(done);
    return done != NULL;
}

static bool tell(Socket *self, PyObject *method) {
    if (self->protocol == NULL)
        return true;
    PyObject *protocol = Py_NewRef(self->protocol); /* it may set another one */
    bool fine = call(protocol, method);
    Py_DECREF(protocol);
    return fine;
}

/* When all is sent, carry out what waited for that. */
static void finish(Socket *self) {
    if (self->unsent != NULL)
        return;
    if (self->eof)
        shutdown(self->fd, SHUT_WR);
    if (self->closing)
        lose(self, Py_None);
}

/* Send as much of the buffers as the kernel takes; -1 with errno set if the connection is broken. */
static Py_ssize_t send_buffers(int fd, PyObject *buffers, Py_ssize_t cut) {
    Py_ssize_t count = PyList_GET_SIZE(buffers);
    Py_buffer views[MOST_BUFFERS];
    struct iovec pieces[MOST_BUFFERS];
    int used = 0;
    while (used < count && used < MOST_BUFFERS) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(buffers, used), &views[used], PyBUF_SIMPLE) < 0) {
            PyErr_Clear();
            errno = EFAULT;
            break;
        }
        pieces[used] = (struct iovec){(char *)views[used].buf + cut, (size_t)(views[used].len - cut)};
        cut = 0;
        used++;
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)used};
    ssize_t sent = used ? sendmsg(fd, &message, MSG_NOSIGNAL) : -1;
    if (sent < 0 && used && (errno == EAGAIN || errno == EINTR))
        sent = 0;
    int error = errno;
    while (used > 0)
        PyBuffer_Release(&views[--used]);
    errno = error;
    return sent;
}

/* Drop what has been sent from the front of the unsent buffers. */
static bool drop_sent(Socket *self, Py_ssize_t sent) {
    self->unsent_size -= sent;
    sent += self->cut;
    Py_ssize_t whole = 0, count = PyList_GET_SIZE(self->unsent);
    while (whole < count) {
        Py_ssize_t size = PyObject_Size(PyList_GET_ITEM(self->unsent, whole));
        if (size < 0)
            return false;
        if (sent < size)
            break;
        sent -= size;
        whole++;
    }
    self->cut = sent;
    if (whole == count)
        Py_CLEAR(self->unsent);
    else if (whole > 0)
        return PyList_SetSlice(self->unsent, 0, whole, NULL) == 0;
    return true;
}

/* Keep what the kernel has not taken, behind what it took before; `sent` bytes of it are gone. */
static bool keep(Socket *self, PyObject *buffers, Py_ssize_t sent) {
    if (self->unsent == NULL) {
        self->unsent = PyList_New(0);
        self->unsent_size = self->cut = 0;
        if (self->unsent == NULL)
            return false;
    }
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(buffers); at++) {
        PyObject *buffer = PyList_GET_ITEM(buffers, at);
        Py_ssize_t size = PyObject_Size(buffer);
        if (size < 0 || PyList_Append(self->unsent, buffer) < 0)
            return false;
        self->unsent_size += size;
    }
    if (!drop_sent(self, sent))
        return false;
    watch(self);
    if (self->unsent_size > self->high && !self->full) {
        self->full = 1;
        return tell(self, str_pause_writing);
    }
    return true;
}

/* Send, or keep, a list of buffers. False if something has raised. */
static bool put_list(Socket *self, PyObject *buffers) {
    if (is_over(self) || PyList_GET_SIZE(buffers) == 0)
        return true;
    Py_ssize_t sent = 0;
    if (self->unsent == NULL) {
        Py_ssize_t total = 0;
        for (Py_ssize_t at = 0; at < PyList_GET_SIZE(buffers); at++) {
            Py_ssize_t size = PyObject_Size(PyList_GET_ITEM(buffers, at));
            if (size < 0)
                return false;
            total += size;
        }
        sent = send_buffers(self->fd, buffers, 0);
        if (sent == total)
            return true;
        if (sent < 0) {
            lose_by_errno(self, errno);
            return true;
        }
    }
    return keep(self, buffers, sent);
}

/* The same for one buffer, as most are. */
static bool put_one(Socket *self, PyObject *buffer) {
    if (is_over(self))
        return true;
    ssize_t sent = 0;
    bool is_plain = PyBytes_CheckExact(buffer) && self->unsent == NULL;
    if (is_plain) {
        sent = send(self->fd, PyBytes_AS_STRING(buffer), (size_t)PyBytes_GET_SIZE(buffer), MSG_NOSIGNAL);
        if (sent == PyBytes_GET_SIZE(buffer))
            return true;
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            lose_by_errno(self, errno);
            return true;
        }
    }
    PyObject *buffers = PyList_New(1);
    if (buffers == NULL)
        return false;
    Py_INCREF(buffer);
    PyList_SET_ITEM(buffers, 0, buffer);
    bool fine = is_plain ? keep(self, buffers, sent > 0 ? sent : 0) : put_list(self, buffers);
    Py_DECREF(buffers);
    return fine;
}

/* The kernel takes more. */
static bool send_more(Socket *self) {
    Py_ssize_t sent = send_buffers(self->fd, self->unsent, self->cut);
    if (sent < 0) {
        lose_by_errno(self, errno);
        return true;
    }
    if (!drop_sent(self, sent))
        return false;
    if (self->full && self->unsent_size <= self->high / 4) {
        self->full = 0;
        if (!tell(self, str_resume_writing))
            return false;
    }
    if (is_over(self))
        return true;
    watch(self);
    finish(self);
    return true;
}

/* ── a turn ──────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The time is told once in each iteration, before anything is applied. */
static bool open_iteration(Poll *self) {
    self->served = true;
    if (self->open)
        return true;
    self->open = 1;
    PyObject *now = PyObject_CallNoArgs(self->monotonic);
    PyObject *wall = now ? PyObject_CallNoArgs(self->time) : NULL;
    PyObject *done = wall ? PyObject_CallFunctionObjArgs(self->tick, now, wall, NULL) : NULL;
    Py_XDECREF(now);
    Py_XDECREF(wall);
    Py_XDECREF(done);
    return done != NULL;
}

/* The packet that was read into place is whole, or will never be. */
static void leave_place(Socket *self) {
    if (self->place == NULL)
        return;
    self->poll->places -= PyBytes_GET_SIZE(self->place);
    Py_CLEAR(self->place);
}

/* Make a place for the packet that the parser collects, while not too much is taken by such. */
static bool make_place(Socket *self) {
    PyObject *parser = PyObject_GetAttr(self->peer, str_parser);
    PyObject *wanted = parser ? PyObject_GetAttr(parser, str_wanted) : NULL;
    PyObject *begun = wanted ? PyObject_GetAttr(parser, str_begun) : NULL;
    bool fine = begun != NULL;
    if (fine) {
        Py_ssize_t size = PyLong_AsSsize_t(wanted);
        fine = PyBytes_CheckExact(begun) && !PyErr_Occurred();
        if (fine && self->poll->places + size <= MOST_PLACES && PyBytes_GET_SIZE(begun) < size) {
            self->place = PyBytes_FromStringAndSize(NULL, size);
            if (self->place == NULL) {
                PyErr_Clear(); /* then it is collected in pieces */
            } else {
                self->filled = PyBytes_GET_SIZE(begun);
                memcpy(PyBytes_AS_STRING(self->place), PyBytes_AS_STRING(begun), (size_t)self->filled);
                self->poll->places += size;
            }
        }
    }
    Py_XDECREF(parser);
    Py_XDECREF(wanted);
    Py_XDECREF(begun);
    return fine;
}

/* So many bytes more are in their place. */
static bool fill_place(Socket *self, ssize_t size) {
    PyObject *parser = PyObject_GetAttr(self->peer, str_parser);
    PyObject *count = parser ? PyLong_FromSsize_t(size) : NULL;
    PyObject *done = count ? PyObject_CallMethodOneArg(parser, str_came, count) : NULL;
    bool fine = done != NULL;
    self->filled += size;
    if (fine && self->filled == PyBytes_GET_SIZE(self->place)) {
        Py_SETREF(done, PyObject_CallMethodOneArg(parser, str_complete, self->place));
        fine = done != NULL;
        leave_place(self);
        self->was_large = 1;
    }
    Py_XDECREF(parser);
    Py_XDECREF(count);
    Py_XDECREF(done);
    return fine;
}

/* What a socket has, as bytes; empty if they went into place. NULL: nothing, and `size` says why. */
static PyObject *read_bytes(Socket *self, ssize_t *size) {
    if (self->place != NULL) {
        *size = recv(self->fd, PyBytes_AS_STRING(self->place) + self->filled,
                     (size_t)(PyBytes_GET_SIZE(self->place) - self->filled), 0);
        if (*size <= 0 || !fill_place(self, *size))
            return NULL;
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    *size = recv(self->fd, self->poll->buffer, self->was_large ? FIRST_READ : READ_SIZE, 0);
    if (*size <= 0)
        return NULL;
    self->was_large = 0;
    return PyBytes_FromStringAndSize(self->poll->buffer, *size);
}

/* One read, applied at once. */
static bool read_once(Socket *self) {
    Poll *poll = self->poll;
    ssize_t size = 1;
    PyObject *data = read_bytes(self, &size);
    if (data == NULL) {
        if (PyErr_Occurred())
            return false;
        if (size < 0) {
            if (errno != EAGAIN && errno != EINTR)
                lose_by_errno(self, errno);
            return true;
        }
        self->at_end = 1;
        watch(self);
        PyObject *stays = PyObject_CallMethodNoArgs(self->protocol, str_eof_received);
        if (stays == NULL)
            return false;
        int truth = PyObject_IsTrue(stays);
        Py_DECREF(stays);
        if (truth == 0 && !self->closing) {
            self->closing = 1;
            finish(self);
        }
        return truth >= 0;
    }
    if (!self->direct) {
        if (self->opens_iteration && !open_iteration(poll)) {
            Py_DECREF(data);
            return false;
        }
        PyObject *protocol = Py_NewRef(self->protocol); /* it may set another one */
        PyObject *done = PyObject_CallMethodOneArg(protocol, str_data_received, data);
        Py_DECREF(protocol);
        Py_DECREF(data);
        Py_XDECREF(done);
        return done != NULL;
    }
    if (!open_iteration(poll)) {
        Py_DECREF(data);
        return false;
    }
    PyObject *arguments[] = {NULL, self->peer, data};
    PyObject *answer = PyObject_Vectorcall(poll->receive, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(data);
    if (answer == NULL)
        return false;
    long came_to = PyLong_AsLong(answer);
    Py_DECREF(answer);
    if (came_to == COLLECTING && self->place == NULL && !make_place(self))
        return false;
    if (came_to == STALLED) {
        self->reading = 0; /* the epoll is told only if it comes to that */
    } else if (came_to >= UNANSWERED && self->is_tcp && self->fd >= 0) {
        /* A peer that left Nagle's algorithm on sends its next packet only when this one has been acknowledged. */
        int on = 1;
        setsockopt(self->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    }
    return true;
}

static PyObject *Socket_lost(Socket *self, PyObject *error);

static bool serve_socket(Socket *self, uint32_t events) {
    Py_INCREF(self);
    self->poll->serving = self;
    bool fine = true;
    if (events & ~(uint32_t)EPOLLIN && self->unsent != NULL)
        fine = send_more(self);
    if (fine && !is_over(self) && events & ~(uint32_t)EPOLLOUT) {
        if (self->reading && !self->closing && !self->at_end)
            fine = read_once(self);
        else
            watch(self);
    }
    if (!fine)
        fine = failed(self->poll, (PyObject *)self);
    self->poll->serving = NULL;
    PyObject *error = self->error;
    if (fine && error != NULL) {
        self->error = NULL;
        PyObject *done = Socket_lost(self, error);
        Py_DECREF(error);
        Py_XDECREF(done);
        fine = done != NULL || failed(self->poll, (PyObject *)self);
    }
    Py_DECREF(self);
    return fine;
}

/* Write what one peer is to get, by three items of outbox.take_ready. */
static bool write_peer(Poll *poll, PyObject *where, PyObject *what, PyObject *unsettled) {
    if (!Py_IS_TYPE(where, &Socket_type)) /* an outlet of another kind, or a connection out of the ordinary */
        return call(where, str_write) || failed(poll, where);
    Socket *self = (Socket *)where;
    bool fine = PyList_CheckExact(what) ? put_list(self, what) : put_one(self, what);
    if (fine && unsettled != Py_None && self->protocol != NULL) {
        PyObject *done = PyObject_CallMethodOneArg(self->protocol, str_look_after, unsettled);
        Py_XDECREF(done);
        fine = done != NULL;
    }
    return fine || failed(poll, where);
}

static double monotonic_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* This process may have stood still, so the clock is asked again before what was decided is written. */
static bool mind_lease(Poll *self) {
    if (self->lease_ends == 0 || monotonic_seconds() < self->lease_ends)
        return true;
    self->lease_ends = 0;
    return call(self->daemon, str_lease_over);
}

/* The end of an iteration: all that peers are to get is written, then the daemon sees to the rest. */
static bool close_iteration(Poll *self) {
    self->open = 0;
    if (!mind_lease(self))
        return false;
    if (PyList_GET_SIZE(self->touched) > 0) {
        PyObject *ready = PyObject_CallOneArg(self->take_ready, self->output);
        if (ready == NULL)
            return false;
        bool fine = true;
        for (Py_ssize_t at = 0; fine && at + 2 < PyList_GET_SIZE(ready); at += 3)
            fine = write_peer(self, PyList_GET_ITEM(ready, at), PyList_GET_ITEM(ready, at + 1),
                              PyList_GET_ITEM(ready, at + 2));
        Py_DECREF(ready);
        if (!fine || (PyList_GET_SIZE(self->touched) > 0 && !call(self->daemon, str_open_iteration)))
            return false;
    }
    int settle = self->always_settle;
    if (!settle) {
        PyObject *timer_at = PyObject_GetAttr(self->daemon, str_timer_at);
        PyObject *news = timer_at ? PyObject_CallOneArg(self->has_news, timer_at) : NULL;
        settle = news ? PyObject_IsTrue(news) : -1;
        Py_XDECREF(timer_at);
        Py_XDECREF(news);
    }
    return settle < 0 ? false : settle ? call(self->daemon, str_settle) : true;
}

/* Wait for something to be ready, without Python's lock.
 *
 * To fall asleep and be woken costs more than a peer that is already running needs for its answer, so at first it is
 * only asked again and again, for a shorter time than that costs. Where this leads to nothing it is left off for more
 * and more waits, in the end for all but one of 128: a quiet job server uses no processor time for it. With one
 * processor nobody else runs meanwhile. */
static int wait_for_events(Poll *self, int milliseconds) {
    int count = 0;
    Py_BEGIN_ALLOW_THREADS
    if (self->skip > 0) {
        self->skip--;
    } else if (self->spins) {
        double end = monotonic_seconds() + SPIN_SECONDS;
        do
            count = epoll_wait(self->fd, self->events, MOST_EVENTS, 0);
        while (count == 0 && monotonic_seconds() < end);
        if (count != 0)
            self->failures = 0;
        else
            self->skip = self->failures = self->failures < 64 ? 2 * self->failures + 1 : self->failures;
    }
    if (count == 0)
        count = epoll_wait(self->fd, self->events, MOST_EVENTS, milliseconds);
    Py_END_ALLOW_THREADS
    return count;
}

PyDoc_STRVAR(select_doc, "select(timeout) -> list of (descriptor, events)\n\n"
"Serve the sockets until a descriptor of asyncio is ready, asyncio has been given something to do, or so many seconds\n"
"are over; None: however long that takes.");

static PyObject *Poll_select(Poll *self, PyObject *timeout) {
    double end = 0;
    bool ends = timeout != Py_None;
    double left = 0;
    if (ends) {
        left = PyFloat_AsDouble(timeout);
        if (left == -1 && PyErr_Occurred())
            return NULL;
        if (left > 0)
            end = monotonic_seconds() + left;
    }
    PyObject *ready = PyList_New(0);
    if (ready == NULL)
        return NULL;
    self->interrupted = false;
    for (;;) {
        int milliseconds = !ends ? -1 : left <= 0 ? 0 : left > 86400 ? 86400000 : (int)ceil(left * 1e3);
        int count;
        if (milliseconds == 0) {
            count = epoll_wait(self->fd, self->events, MOST_EVENTS, 0);
        } else {
            count = wait_for_events(self, milliseconds);
        }
        if (count < 0) {
            if (errno != EINTR) {
                PyErr_SetFromErrno(PyExc_OSError);
                goto bad;
            }
            if (PyErr_CheckSignals() < 0)
                goto bad;
            break;
        }
        if (!mind_lease(self) && !failed(self, Py_None))
            goto bad;
        for (int at = 0; at < count; at++) {
            int fd = self->events[at].data.fd;
            uint32_t events = self->events[at].events;
            if (fd < self->room && self->sockets[fd] != NULL) {
                if (!serve_socket(self->sockets[fd], events))
                    goto bad;
                continue;
            }
            PyObject *pair = Py_BuildValue("iI", fd, events);
            if (pair == NULL || PyList_Append(ready, pair) < 0) {
                Py_XDECREF(pair);
                goto bad;
            }
            Py_DECREF(pair);
        }
        if (self->served) {
            self->served = false;
            if (!close_iteration(self) && !failed(self, Py_None))
                goto bad;
        }
        if (PyList_GET_SIZE(ready) > 0 || self->interrupted || count == 0)
            break;
        if (ends) {
            left = end - monotonic_seconds();
            if (left <= 0)
                break;
        }
    }
    return ready;
bad:
    Py_DECREF(ready);
    return NULL;
}

/* ── the objects ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static bool learn(PyObject **where, PyObject *of, const char *name) {
    PyObject *found = PyObject_GetAttrString(of, name);
    Py_XSETREF(*where, found);
    return found != NULL;
}

PyDoc_STRVAR(attach_doc, "attach(daemon, take_ready, always_settle)\n\nServe the sockets of this daemon.");

static PyObject *Poll_attach(Poll *self, PyObject *arguments) {
    PyObject *daemon, *take_ready;
    int always;
    if (!PyArg_ParseTuple(arguments, "OOp", &daemon, &take_ready, &always))
        return NULL;
    self->always_settle = always;
    Py_INCREF(daemon);
    Py_XSETREF(self->daemon, daemon);
    Py_INCREF(take_ready);
    Py_XSETREF(self->take_ready, take_ready);
    PyObject *server = PyObject_GetAttrString(daemon, "server");
    PyObject *clock = PyObject_GetAttrString(daemon, "clock");
    bool fine = server != NULL && clock != NULL && learn(&self->loop, daemon, "loop") &&
                learn(&self->output, server, "output") && learn(&self->touched, self->output, "touched") &&
                learn(&self->receive, server, "receive") && learn(&self->tick, server, "tick") &&
                learn(&self->has_news, server, "has_news") && learn(&self->monotonic, clock, "monotonic") &&
                learn(&self->time, clock, "time");
    Py_XDECREF(server);
    Py_XDECREF(clock);
    if (!fine)
        return NULL;
    if (!PyList_CheckExact(self->touched)) {
        PyErr_SetString(PyExc_TypeError, "the touched peers are to be in a list");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(interrupt_doc, "interrupt()\n\nHave select return after this turn: asyncio has something to do.");

static PyObject *Poll_interrupt(Poll *self, PyObject *nothing) {
    self->interrupted = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_doc, "add(fd, is_tcp) -> Socket\n\nTake a connected, non-blocking socket over, and close it in the end.");

static PyObject *Poll_add(Poll *self, PyObject *arguments) {
    int fd, is_tcp;
    if (!PyArg_ParseTuple(arguments, "ip", &fd, &is_tcp))
        return NULL;
    if (fd < 0 || self->loop == NULL) {
        PyErr_SetString(PyExc_ValueError, "a descriptor, of a daemon that is attached");
        return NULL;
    }
    if (fd >= self->room) {
        int room = self->room ? self->room : 64;
        while (room <= fd)
            room *= 2;
        Socket **sockets = PyMem_Realloc(self->sockets, (size_t)room * sizeof *sockets);
        if (sockets == NULL)
            return PyErr_NoMemory();
        memset(sockets + self->room, 0, (size_t)(room - self->room) * sizeof *sockets);
        self->sockets = sockets;
        self->room = room;
    }
    Socket *made = PyObject_GC_New(Socket, &Socket_type);
    if (made == NULL)
        return NULL;
    memset((char *)made + sizeof(PyObject), 0, sizeof *made - sizeof(PyObject));
    Py_INCREF(self);
    made->poll = self;
    made->fd = fd;
    made->is_tcp = (char)is_tcp;
    made->high = 64 * 1024;
    PyObject_GC_Track(made);
    Py_INCREF(made);
    self->sockets[fd] = made;
    return (PyObject *)made;
}

static int Poll_traverse(Poll *self, visitproc visit, void *arg) {
    Py_VISIT(self->daemon);
    Py_VISIT(self->loop);
    Py_VISIT(self->output);
    Py_VISIT(self->take_ready);
    Py_VISIT(self->touched);
    Py_VISIT(self->receive);
    Py_VISIT(self->tick);
    Py_VISIT(self->monotonic);
    Py_VISIT(self->time);
    Py_VISIT(self->has_news);
    for (int fd = 0; fd < self->room; fd++)
        Py_VISIT(self->sockets[fd]);
    return 0;
}

static int Poll_clear(Poll *self) {
    for (int fd = 0; fd < self->room; fd++)
        Py_CLEAR(self->sockets[fd]);
    Py_CLEAR(self->daemon);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->output);
    Py_CLEAR(self->take_ready);
    Py_CLEAR(self->touched);
    Py_CLEAR(self->receive);
    Py_CLEAR(self->tick);
    Py_CLEAR(self->monotonic);
    Py_CLEAR(self->time);
    Py_CLEAR(self->has_news);
    return 0;
}

static void Poll_dealloc(Poll *self) {
    PyObject_GC_UnTrack(self);
    Poll_clear(self);
    PyMem_Free(self->sockets);
    PyObject_GC_Del(self);
}

static PyObject *Poll_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    int fd;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    Poll *self = PyObject_GC_New(Poll, &Poll_type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, offsetof(Poll, events) - sizeof(PyObject));
    self->fd = fd;
    cpu_set_t processors;
    self->spins = sched_getaffinity(0, sizeof processors, &processors) != 0 || CPU_COUNT(&processors) > 1;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyMethodDef Poll_methods[] = {
    {"select", (PyCFunction)Poll_select, METH_O, select_doc},
    {"attach", (PyCFunction)Poll_attach, METH_VARARGS, attach_doc},
    {"interrupt", (PyCFunction)Poll_interrupt, METH_NOARGS, interrupt_doc},
    {"add", (PyCFunction)Poll_add, METH_VARARGS, add_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Poll_members[] = {
    {"open", T_BOOL, offsetof(Poll, open), 0, "whether an iteration is open"},
    {"lease_ends", T_DOUBLE, offsetof(Poll, lease_ends), 0,
     "when the daemon's lease_over is called, in monotonic seconds, unless this is changed before; 0: never"},
    {"places", T_PYSSIZET, offsetof(Poll, places), READONLY, "bytes of packets that are being read into place"},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject Poll_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "geartrain.daemon._epoll.Poll",
    .tp_doc = PyDoc_STR("Poll(epoll)\n\nThe sockets of one daemon, beside what asyncio watches with the same epoll."),
    .tp_basicsize = sizeof(Poll),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Poll_new,
    .tp_dealloc = (destructor)Poll_dealloc,
    .tp_traverse = (traverseproc)Poll_traverse,
    .tp_clear = (inquiry)Poll_clear,
    .tp_methods = Poll_methods,
    .tp_members = Poll_members,
};

PyDoc_STRVAR(start_doc, "start(protocol, peer)\n\nBegin to read, for this protocol and its peer.");

static PyObject *Socket_start(Socket *self, PyObject *arguments) {
    PyObject *protocol, *peer;
    if (!PyArg_ParseTuple(arguments, "OO", &protocol, &peer))
        return NULL;
    Py_INCREF(protocol);
    Py_XSETREF(self->protocol, protocol);
    Py_INCREF(peer);
    Py_XSETREF(self->peer, peer);
    self->reading = self->direct = 1;
    watch(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_protocol_doc, "set_protocol(protocol)\n\nFrom now on the protocol is this one, which is given all that comes.");

static PyObject *Socket_set_protocol(Socket *self, PyObject *protocol) {
    if (self->protocol != NULL) { /* else it is over */
        Py_INCREF(protocol);
        Py_SETREF(self->protocol, protocol);
        self->direct = self->opens_iteration = 0;
    }
    Py_RETURN_NONE;
}

static PyObject *Socket_write(Socket *self, PyObject *buffer) {
    if (!put_one(self, buffer))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Socket_writelines(Socket *self, PyObject *buffers) {
    if (!PyList_Check(buffers)) {
        PyErr_SetString(PyExc_TypeError, "writelines takes a list of buffers");
        return NULL;
    }
    if (!put_list(self, buffers))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Socket_pause_reading(Socket *self, PyObject *nothing) {
    self->reading = 0;
    Py_RETURN_NONE;
}

static PyObject *Socket_resume_reading(Socket *self, PyObject *nothing) {
    self->reading = 1;
    watch(self);
    Py_RETURN_NONE;
}

static PyObject *Socket_close(Socket *self, PyObject *nothing) {
    if (!self->closing) {
        self->closing = 1;
        watch(self);
        finish(self);
    }
    Py_RETURN_NONE;
}

static PyObject *Socket_abort(Socket *self, PyObject *nothing) {
    lose(self, Py_None);
    Py_RETURN_NONE;
}

static PyObject *Socket_write_eof(Socket *self, PyObject *nothing) {
    if (!self->eof && !self->closing) {
        self->eof = 1;
        finish(self);
    }
    Py_RETURN_NONE;
}

static PyObject *Socket_can_write_eof(Socket *self, PyObject *nothing) { Py_RETURN_TRUE; }

static PyObject *Socket_is_closing(Socket *self, PyObject *nothing) { return PyBool_FromLong(self->closing); }

static PyObject *Socket_get_write_buffer_size(Socket *self, PyObject *nothing) {
    return PyLong_FromSsize_t(self->unsent_size);
}

static PyObject *Socket_set_write_buffer_limits(Socket *self, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"high", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "n", names, &self->high))
        return NULL;
    Py_RETURN_NONE;
}

/* What remains to be done in the event loop once the connection is over. */
static PyObject *Socket_lost(Socket *self, PyObject *error) {
    PyObject *protocol = self->protocol;
    self->protocol = NULL;
    Py_CLEAR(self->peer);
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    if (protocol == NULL)
        Py_RETURN_NONE;
    PyObject *done = PyObject_CallMethodOneArg(protocol, str_connection_lost, error);
    Py_DECREF(protocol);
    return done;
}

static int Socket_traverse(Socket *self, visitproc visit, void *arg) {
    Py_VISIT(self->poll);
    Py_VISIT(self->protocol);
    Py_VISIT(self->peer);
    Py_VISIT(self->error);
    Py_VISIT(self->unsent);
    return 0;
}

static int Socket_clear(Socket *self) {
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->peer);
    Py_CLEAR(self->error);
    Py_CLEAR(self->place);
    Py_CLEAR(self->unsent);
    return 0;
}

static void Socket_dealloc(Socket *self) {
    PyObject_GC_UnTrack(self);
    Socket_clear(self);
    if (self->fd >= 0)
        close(self->fd);
    Py_CLEAR(self->poll);
    PyObject_GC_Del(self);
}

static PyMethodDef Socket_methods[] = {
    {"start", (PyCFunction)Socket_start, METH_VARARGS, start_doc},
    {"set_protocol", (PyCFunction)Socket_set_protocol, METH_O, set_protocol_doc},
    {"write", (PyCFunction)Socket_write, METH_O, NULL},
    {"writelines", (PyCFunction)Socket_writelines, METH_O, NULL},
    {"pause_reading", (PyCFunction)Socket_pause_reading, METH_NOARGS, NULL},
    {"resume_reading", (PyCFunction)Socket_resume_reading, METH_NOARGS, NULL},
    {"close", (PyCFunction)Socket_close, METH_NOARGS, NULL},
    {"abort", (PyCFunction)Socket_abort, METH_NOARGS, NULL},
    {"write_eof", (PyCFunction)Socket_write_eof, METH_NOARGS, NULL},
    {"can_write_eof", (PyCFunction)Socket_can_write_eof, METH_NOARGS, NULL},
    {"is_closing", (PyCFunction)Socket_is_closing, METH_NOARGS, NULL},
    {"get_write_buffer_size", (PyCFunction)Socket_get_write_buffer_size, METH_NOARGS, NULL},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))Socket_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_lost", (PyCFunction)Socket_lost, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Socket_members[] = {
    {"direct", T_BOOL, offsetof(Socket, direct), 0, "whether reads and writes pass the protocol by"},
    {"opens_iteration", T_BOOL, offsetof(Socket, opens_iteration), 0,
     "whether an iteration is open when the protocol is given what has come"},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject Socket_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "geartrain.daemon._epoll.Socket",
    .tp_doc = PyDoc_STR("One connection, as a transport of asyncio's kind; Poll.add makes it."),
    .tp_basicsize = sizeof(Socket),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)Socket_dealloc,
    .tp_traverse = (traverseproc)Socket_traverse,
    .tp_clear = (inquiry)Socket_clear,
    .tp_methods = Socket_methods,
    .tp_members = Socket_members,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "geartrain.daemon._epoll",
    .m_doc = "The sockets of the job server: one wait, one read and one write for each in a turn.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__epoll(void) {
    static const struct {
        PyObject **where;
        const char *text;
    } names[] = {
        {&str_write, "write"},
        {&str_timer_at, "timer_at"},
        {&str_look_after, "look_after"},
        {&str_data_received, "data_received"},
        {&str_eof_received, "eof_received"},
        {&str_pause_writing, "pause_writing"},
        {&str_resume_writing, "resume_writing"},
        {&str_connection_lost, "connection_lost"},
        {&str_call_soon, "call_soon"},
        {&str_settle, "settle"},
        {&str_lease_over, "lease_over"},
        {&str_failed, "failed"},
        {&str_open_iteration, "open_iteration"},
        {&str_parser, "parser"},
        {&str_wanted, "wanted"},
        {&str_begun, "begun"},
        {&str_came, "came"},
        {&str_complete, "complete"},
    };
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if ((*names[at].where = PyUnicode_InternFromString(names[at].text)) == NULL)
            return NULL;
    if (PyType_Ready(&Poll_type) < 0 || PyType_Ready(&Socket_type) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddObjectRef(made, "Poll", (PyObject *)&Poll_type) < 0 ||
        PyModule_AddObjectRef(made, "Socket", (PyObject *)&Socket_type) < 0)
        return NULL;
    return made;
}
