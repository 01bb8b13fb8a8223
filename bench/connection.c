#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_ROOM = 64 * 1024,     /* of a receive buffer; it grows to the largest packet */
    EVENTS_A_TURN = 1024,
    PIECES_A_WRITE = 64,
    SILENCE_MS = 20 * 1000,
};

static int epoll_fd;
static struct connection **touched;
static size_t touched_count;

_Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *grow(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (!memory)
        give_up("no memory for %zu bytes", size);
    return memory;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void open_loop(size_t connections)
{
    rlim_t needed = connections + 16;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < needed) {
        limit.rlim_cur = needed;
        if (limit.rlim_max < needed)
            limit.rlim_max = needed;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            give_up("%zu connections need %zu open files: raise the limit (ulimit -n)", connections, (size_t)needed);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        give_up("epoll_create1: %s", strerror(errno));
    touched = grow(NULL, connections * sizeof *touched);
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll_fd, operation, connection->fd, &event) < 0)
        give_up("epoll_ctl: %s", strerror(errno));
}

void open_connection(struct connection *connection, uint16_t port, packet_taker *take)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(connection, 0, sizeof *connection);
    connection->take = take;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        give_up("socket: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        give_up("can't connect to 127.0.0.1:%u: %s", port, strerror(errno));
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

/* -- sending ------------------------------------------------------------------------------------------------ */

static void touch(struct connection *connection)
{
    if (!connection->touched) {
        connection->touched = true;
        touched[touched_count++] = connection;
    }
}

static struct piece *add_piece(struct connection *c)
{
    if (c->piece_count == c->piece_room) {
        c->piece_room = c->piece_room ? 2 * c->piece_room : 8;
        c->pieces = grow(c->pieces, c->piece_room * sizeof *c->pieces);
    }
    struct piece *piece = &c->pieces[c->piece_count++];
    *piece = (struct piece){NULL, 0};
    return piece;
}

uint8_t *put(struct connection *c, size_t length)
{
    touch(c);
    if (c->own_length + length > c->own_room) {
        c->own_room = 2 * (c->own_length + length);
        c->own = grow(c->own, c->own_room);
    }
    struct piece *last = c->piece_count > c->first_piece ? &c->pieces[c->piece_count - 1] : NULL;
    if (!last || last->lent)
        last = add_piece(c);
    last->length += length;
    uint8_t *place = c->own + c->own_length;
    c->own_length += length;
    return place;
}

void put_lent(struct connection *c, const uint8_t *bytes, size_t length)
{
    touch(c);
    *add_piece(c) = (struct piece){bytes, length};
}

void put_packet(struct connection *c, enum packet_type type, const char *body, size_t size)
{
    uint8_t *place = put(c, HEAD_SIZE + size);
    write_head(place, type, size);
    memcpy(place + HEAD_SIZE, body, size);
}

static int gather(const struct connection *c, struct iovec *vector)
{
    int count = 0;
    uint8_t *own = c->own + c->own_sent;
    for (size_t i = c->first_piece; i < c->piece_count && count < PIECES_A_WRITE; i++, count++) {
        const struct piece *piece = &c->pieces[i];
        vector[count].iov_base = piece->lent ? (void *)piece->lent : own;
        vector[count].iov_len = piece->length;
        if (!piece->lent)
            own += piece->length;
    }
    return count;
}

static void drop_sent(struct connection *c, size_t sent)
{
    while (sent) {
        struct piece *piece = &c->pieces[c->first_piece];
        size_t part = sent < piece->length ? sent : piece->length;
        if (piece->lent)
            piece->lent += part;
        else
            c->own_sent += part;
        piece->length -= part;
        sent -= part;
        if (!piece->length)
            c->first_piece++;
    }
}

static void write_due(struct connection *c)
{
    while (c->first_piece < c->piece_count) {
        struct iovec vector[PIECES_A_WRITE];
        ssize_t sent = writev(c->fd, vector, gather(c, vector));
        if (sent < 0 && errno == EAGAIN) {
            if (!c->blocked)
                watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            c->blocked = true;
            return;
        }
        if (sent < 0)
            give_up("can't write to the server: %s", strerror(errno));
        drop_sent(c, (size_t)sent);
    }
    c->first_piece = c->piece_count = c->own_sent = c->own_length = 0;
    if (c->blocked)
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->blocked = false;
}

static void write_touched(void)
{
    for (size_t i = 0; i < touched_count; i++) {
        touched[i]->touched = false;
        if (!touched[i]->blocked)
            write_due(touched[i]);
    }
    touched_count = 0;
}

/* -- receiving ---------------------------------------------------------------------------------------------- */

static void read_packets(struct connection *c)
{
    if (!c->in) {
        c->in_room = FIRST_ROOM;
        c->in = grow(NULL, c->in_room);
    }
    ssize_t received = read(c->fd, c->in + c->in_length, c->in_room - c->in_length);
    if (received == 0)
        give_up("the server closed a connection");
    if (received < 0) {
        if (errno == EAGAIN)
            return;
        give_up("can't read from the server: %s", strerror(errno));
    }
    c->in_length += (size_t)received;

    size_t at = 0;
    size_t needed = HEAD_SIZE;
    while (c->in_length - at >= HEAD_SIZE) {
        const uint8_t *head = c->in + at;
        if (memcmp(head, "\0RES", 4))
            give_up("the server sent something that is no packet");
        size_t size = read_number(head + 8);
        needed = HEAD_SIZE + size;
        if (c->in_length - at < needed)
            break;
        c->take(c, read_number(head + 4), head + HEAD_SIZE, size);
        at += needed;
    }
    c->in_length -= at;
    memmove(c->in, c->in + at, c->in_length);
    if (needed > c->in_room) {
        c->in_room = needed;
        c->in = grow(c->in, c->in_room);
    }
}

void turn(const char *awaited)
{
    static struct epoll_event events[EVENTS_A_TURN];
    write_touched();
    int count = epoll_wait(epoll_fd, events, EVENTS_A_TURN, SILENCE_MS);
    if (count == 0)
        give_up("the server is silent for %d seconds; awaited: %s", SILENCE_MS / 1000, awaited);
    if (count < 0 && errno != EINTR)
        give_up("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            write_due(connection);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            read_packets(connection);
    }
    write_touched();
}
