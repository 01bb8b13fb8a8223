/* Clients and workers: what each does when a packet comes.
 *
 * A client keeps a window of jobs outstanding: until JOB_CREATED for background jobs, until the result for foreground
 * jobs. It submits again once `refill` places of the window are free, all in one write.
 *
 * A worker behaves as libgearman's: CAN_DO, GRAB_JOB_ALL until NO_JOB, PRE_SLEEP, and GRAB_JOB_ALL again after NOOP.
 * WORK_COMPLETE and the next GRAB_JOB_ALL leave in one write, as good workers do it. When no grabs are left to it, it
 * sends ECHO_REQ instead: the answer proves that the server has taken all before it.
 */
#ifndef PEERS_H
#define PEERS_H

#include "ledger.h"

#define NO_LIMIT UINT64_MAX

struct traffic {
    /* what the peers may do */
    bool background;
    uint64_t window, refill;    /* of each client, in jobs */
    uint64_t job_limit;         /* no job beyond this number is submitted */
    uint64_t backlog;           /* no job is submitted while so many wait for a worker, if not 0 */
    uint64_t deadline;          /* no job is submitted after this time (now_ns), if not 0 */
    uint64_t grabs_left;        /* of all workers; NO_LIMIT: as many as there are jobs */
    bool lying_down;            /* workers confirm by an ECHO_REQ that they sleep */

    /* what they did */
    uint64_t submitted, created, assigned, answered;
    uint64_t questions;         /* of workers, that the server has not answered yet */
};

extern struct traffic traffic;

void connect_clients(size_t count, uint16_t port);
void connect_workers(size_t count, uint16_t port);

/* Connections that say nothing, as of clients that keep one for later. */
void connect_silent(size_t count, uint16_t port);

/* Lets every client submit as much as its window and the job limit allow. */
void start_clients(void);

/* Lets every worker ask for a job (or, without grabs left, send an ECHO_REQ). */
void start_workers(void);

#endif
