/* echo PORT CONNECTIONS: workers of the function `echo` over so many connections in one process, until it is killed.
 *
 * It costs next to nothing, so that what is measured is the job server and who submits.
 */
#include <stdlib.h>

#include "../connection.h"

static void grab(struct connection *connection) { put_packet(connection, GRAB_JOB, "", 0); }

static void take(struct connection *connection, uint32_t type, const uint8_t *body, size_t size)
{
    if (type == JOB_ASSIGN) {
        const uint8_t *handle_end = memchr(body, 0, size);
        const uint8_t *function_end = memchr(handle_end + 1, 0, size - (size_t)(handle_end + 1 - body));
        size_t handle = (size_t)(handle_end + 1 - body), workload = size - (size_t)(function_end + 1 - body);
        uint8_t *at = put(connection, HEAD_SIZE + handle + workload);
        write_head(at, WORK_COMPLETE, handle + workload);
        memcpy(at + HEAD_SIZE, body, handle);
        memcpy(at + HEAD_SIZE + handle, function_end + 1, workload);
        grab(connection);
    } else if (type == NO_JOB) {
        put_packet(connection, PRE_SLEEP, "", 0);
    } else if (type == NOOP) {
        grab(connection);
    } else {
        give_up("a worker got a packet of type %u", type);
    }
}

int main(int count, char **words)
{
    if (count != 3)
        give_up("echo PORT CONNECTIONS");
    size_t workers = (size_t)atoi(words[2]);
    struct connection *connections = calloc(workers, sizeof *connections);
    open_loop(workers);
    for (size_t at = 0; at < workers; at++) {
        open_connection(&connections[at], (uint16_t)atoi(words[1]), take);
        put_packet(&connections[at], CAN_DO, "echo", 4);
        grab(&connections[at]);
    }
    for (;;)
        turn("jobs");
}
