/* The ledger: what was submitted, and the proof that each job was done exactly once with its bytes intact.
 *
 * A workload carries its job's number and a stretch of a random block that depends on the number; the result carries
 * the number turned over and the same stretch. So a worker can tell that a workload arrived whole, a client that it
 * got the result of its own job, and both at the cost of one memcmp. Every violation ends the run.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include "connection.h"

#define FUNCTION "bench"        /* of every job */

enum { SMALLEST_WORKLOAD = 8 };

struct latencies {
    double p50, p90, p99, max;  /* microseconds from submission to result */
};

/* Opens a ledger for at most `jobs` jobs with workloads of `size` bytes; `uniques`: each job has its own unique. */
void open_ledger(size_t jobs, size_t size, bool uniques);

/* Puts the packet that submits a job, and notes the time of it. */
void put_submission(struct connection *client, uint64_t number, bool background, uint64_t now);

/* JOB_CREATED came for a job: its body is the handle. */
void note_created(uint64_t number, const uint8_t *handle, size_t size);

/* A worker was assigned a job: checks that it is the first time and the bytes are right, and puts WORK_COMPLETE. */
void do_assigned(struct connection *worker, uint32_t type, const uint8_t *body, size_t size);

/* WORK_COMPLETE came to a client: checks that it is the first, for one of the first `submitted` jobs, and right. */
void note_result(uint64_t submitted, const uint8_t *body, size_t size, uint64_t now);

/* Checks that of `submitted` jobs, in any order, just `assigned` were assigned once and `answered` answered once. */
void close_ledger(uint64_t submitted, uint64_t assigned, uint64_t answered);

/* How many workloads and results were compared byte by byte. */
uint64_t payloads_compared(void);

struct latencies measure_latencies(uint64_t submitted);

#endif
