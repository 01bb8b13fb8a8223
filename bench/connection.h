/* Non-blocking connections to the job server, and the loop that serves them all in one thread.
 *
 * Everything that arrived on a connection is read at once and handed on packet by packet; everything its packets
 * caused to be sent leaves in one write at the end of the turn. So the load generator makes about two system calls
 * for a batch of packets, and the job server under test is what limits the speed.
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gearman.h"

struct connection;

typedef void packet_taker(struct connection *connection, uint32_t type, const uint8_t *body, size_t size);

/* A stretch of unsent bytes: either lent by the caller, or the next `length` of the connection's own bytes. */
struct piece {
    const uint8_t *lent;
    size_t length;
};

struct connection {
    int fd;
    packet_taker *take;         /* called for each packet that arrives */
    bool touched;               /* something was put since the last write */
    bool blocked;               /* the socket took no more; waiting until it does */

    uint8_t *in;                /* received, not yet a whole packet */
    size_t in_length, in_room;

    uint8_t *own;               /* bytes to send that were copied here */
    size_t own_sent, own_length, own_room;
    struct piece *pieces;       /* everything to send, in order */
    size_t first_piece, piece_count, piece_room;
};

/* Ends the run with a message: a figure from a run that went wrong is worse than none. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);

/* Prepares the loop for at most `connections` connections; raises the limit of open files as far as needed. */
void open_loop(size_t connections);

/* Connects to 127.0.0.1. Waits until the server's kernel has taken the connection. */
void open_connection(struct connection *connection, uint16_t port, packet_taker *take);

/* Gives room for `length` bytes at the end of what is to be sent; the caller fills them before the next call. */
uint8_t *put(struct connection *connection, size_t length);

/* Appends bytes without copying them; they must stay as they are until sent. */
void put_lent(struct connection *connection, const uint8_t *bytes, size_t length);

void put_packet(struct connection *connection, enum packet_type type, const char *body, size_t size);

/* Writes what is due, waits for the server, reads and hands on what came, writes the answers.
 * Gives up when the server is silent for 20 seconds, saying what was `awaited`. */
void turn(const char *awaited);

#endif
