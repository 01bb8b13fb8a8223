#include "peers.h"

#include <stdio.h>
#include <stdlib.h>

struct client {
    struct connection connection;   /* first, so that a connection is its client */
    uint64_t outstanding;
    uint64_t *awaiting_handle;      /* ring of job numbers in the order of submission */
    uint64_t oldest, newest;
};

struct traffic traffic;

static struct client *clients;
static size_t client_count;
static struct connection *workers;
static size_t worker_count;

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        give_up("no memory for %zu connections", count);
    return memory;
}

static void refuse(uint32_t type, const uint8_t *body, size_t size)
{
    if (type == ERROR_PACKET) {
        const char *text = memchr(body, 0, size);
        give_up("the server answered ERROR %.*s: %s", (int)size, (const char *)body,
                text ? strndup(text + 1, (size_t)((const char *)body + size - text - 1)) : "");
    }
    give_up("a packet of type %u came unexpected", type);
}

/* -- clients ------------------------------------------------------------------------------------------------ */

static void submit(struct client *client, uint64_t now)
{
    if (traffic.deadline && now >= traffic.deadline)
        traffic.job_limit = traffic.submitted;
    if (client->outstanding + traffic.refill > traffic.window)
        return;
    uint64_t limit = traffic.job_limit;
    if (traffic.backlog && limit > traffic.assigned + traffic.backlog)
        limit = traffic.assigned + traffic.backlog;
    while (client->outstanding < traffic.window && traffic.submitted < limit) {
        client->awaiting_handle[client->newest++ % traffic.window] = traffic.submitted;
        put_submission(&client->connection, traffic.submitted++, traffic.background, now);
        client->outstanding++;
    }
}

static void take_at_client(struct connection *connection, uint32_t type, const uint8_t *body, size_t size)
{
    struct client *client = (struct client *)connection;
    uint64_t now = now_ns();
    if (type == JOB_CREATED) {
        if (client->oldest == client->newest)
            give_up("JOB_CREATED came without a submission");
        note_created(client->awaiting_handle[client->oldest++ % traffic.window], body, size);
        traffic.created++;
        if (!traffic.background)
            return;
    } else if (type == WORK_COMPLETE && !traffic.background) {
        note_result(traffic.submitted, body, size, now);
        traffic.answered++;
    } else {
        refuse(type, body, size);
    }
    client->outstanding--;
    submit(client, now);
}

void connect_clients(size_t count, uint16_t port)
{
    client_count = count;
    clients = allocate(count, sizeof *clients);
    for (size_t i = 0; i < count; i++) {
        open_connection(&clients[i].connection, port, take_at_client);
        clients[i].awaiting_handle = allocate(traffic.window, sizeof *clients[i].awaiting_handle);
    }
}

void start_clients(void)
{
    uint64_t now = now_ns();
    for (size_t i = 0; i < client_count; i++)
        submit(&clients[i], now);
}

/* -- workers ------------------------------------------------------------------------------------------------ */

static void ask(struct connection *worker)
{
    enum packet_type question = GRAB_JOB_ALL;
    if (traffic.grabs_left == 0)
        question = ECHO_REQ;
    else if (traffic.grabs_left != NO_LIMIT)
        traffic.grabs_left--;
    put_packet(worker, question, "", 0);
    traffic.questions++;
}

static void lie_down(struct connection *worker)
{
    put_packet(worker, PRE_SLEEP, "", 0);
    if (traffic.lying_down) {
        put_packet(worker, ECHO_REQ, "", 0);
        traffic.questions++;
    }
    if (traffic.grabs_left != NO_LIMIT)
        traffic.grabs_left++;
}

static void take_at_worker(struct connection *worker, uint32_t type, const uint8_t *body, size_t size)
{
    switch (type) {
    case NOOP:
        ask(worker);
        return;
    case JOB_ASSIGN_UNIQ:
    case JOB_ASSIGN_ALL:
        do_assigned(worker, type, body, size);
        traffic.assigned++;
        ask(worker);
        break;
    case NO_JOB:
        lie_down(worker);
        break;
    case ECHO_RES:
        break;
    default:
        refuse(type, body, size);
    }
    traffic.questions--;
}

void connect_workers(size_t count, uint16_t port)
{
    worker_count = count;
    workers = allocate(count, sizeof *workers);
    for (size_t i = 0; i < count; i++) {
        open_connection(&workers[i], port, take_at_worker);
        put_packet(&workers[i], CAN_DO, FUNCTION, sizeof FUNCTION - 1);
    }
}

void start_workers(void)
{
    for (size_t i = 0; i < worker_count; i++)
        ask(&workers[i]);
}

void connect_silent(size_t count, uint16_t port)
{
    struct connection *silent = allocate(count, sizeof *silent);
    for (size_t i = 0; i < count; i++)
        open_connection(&silent[i], port, take_at_worker);
    /* A server takes connections in the order they were made: when the last one has its answer, all are taken. */
    if (count) {
        put_packet(&silent[count - 1], ECHO_REQ, "", 0);
        traffic.questions++;
    }
}
