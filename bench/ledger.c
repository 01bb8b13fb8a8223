#define _GNU_SOURCE
#include "ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STARTS = 4096,              /* different places in the block where a job's stretch can begin */
    LEND_FROM = 2048,           /* stretches this long are sent without a copy */
    NUMBER_SIZE = 8,
    UNIQUE_SIZE = 16,
};

struct job {
    uint64_t handle;            /* hash of the handle, 0: not known yet */
    uint64_t time;              /* of the submission; once the result is here, how long it took; in ns */
    bool created, assigned, answered;
};

static struct job *jobs;
static size_t room;
static size_t stretch_size;
static bool with_uniques;
static uint8_t *block;
static uint64_t compared;

/* Spreads a number over all 64 bits (the finalizer of splitmix64). */
static uint64_t scramble(uint64_t number)
{
    number += 0x9e3779b97f4a7c15u;
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9u;
    number = (number ^ (number >> 27)) * 0x94d049bb133111ebu;
    return number ^ (number >> 31);
}

static uint64_t hash_handle(const uint8_t *handle, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ handle[i]) * 0x100000001b3u;
    return hash ? hash : 1;
}

static void write_unique(char *at, uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t rest = scramble(number);
    for (int i = 0; i < UNIQUE_SIZE; i++, rest >>= 4)
        at[i] = digits[rest & 15];
}

static const uint8_t *stretch(uint64_t number)
{
    return block + number * 61 % STARTS;
}

void open_ledger(size_t count, size_t size, bool uniques)
{
    room = count;
    stretch_size = size - NUMBER_SIZE;
    with_uniques = uniques;
    jobs = calloc(count ? count : 1, sizeof *jobs);
    block = malloc(STARTS + stretch_size);
    if (!jobs || !block)
        give_up("no memory for a ledger of %zu jobs", count);
    for (size_t i = 0; i < STARTS + stretch_size; i++)
        block[i] = (uint8_t)scramble(i);
}

/* Puts a number (a job's, or turned over in its result) and the job's stretch of the block. */
static void put_payload(struct connection *connection, uint64_t sign, uint64_t number)
{
    bool lend = stretch_size >= LEND_FROM;
    uint8_t *place = put(connection, NUMBER_SIZE + (lend ? 0 : stretch_size));
    memcpy(place, &sign, NUMBER_SIZE);
    if (lend)
        put_lent(connection, stretch(number), stretch_size);
    else
        memcpy(place + NUMBER_SIZE, stretch(number), stretch_size);
}

static uint64_t read_sign(const uint8_t *payload, size_t size, const char *what)
{
    if (size != NUMBER_SIZE + stretch_size)
        give_up("%s of %zu bytes instead of %zu", what, size, NUMBER_SIZE + stretch_size);
    uint64_t sign;
    memcpy(&sign, payload, NUMBER_SIZE);
    return sign;
}

static void compare_stretch(uint64_t number, const uint8_t *payload, const char *what)
{
    if (memcmp(payload + NUMBER_SIZE, stretch(number), stretch_size))
        give_up("%s of job %" PRIu64 " is damaged", what, number);
    compared++;
}

/* The submitter, the worker and the receiver of the result must all see the same handle, whoever sees it first. */
static void check_handle(uint64_t number, const uint8_t *handle, size_t size)
{
    uint64_t hash = hash_handle(handle, size);
    if (!jobs[number].handle)
        jobs[number].handle = hash;
    else if (jobs[number].handle != hash)
        give_up("job %" PRIu64 " has another handle than before: %.*s", number, (int)size, (const char *)handle);
}

/* The end of the argument that begins at `at`; steps over its NUL. */
static const uint8_t *end_argument(const uint8_t **at, const uint8_t *end, const char *packet)
{
    const uint8_t *nul = memchr(*at, 0, (size_t)(end - *at));
    if (!nul)
        give_up("%s with too few arguments", packet);
    *at = nul + 1;
    return nul;
}

void put_submission(struct connection *client, uint64_t number, bool background, uint64_t now)
{
    size_t unique_size = with_uniques ? UNIQUE_SIZE : 0;
    size_t names_size = sizeof FUNCTION + unique_size + 1;
    uint8_t *place = put(client, HEAD_SIZE + names_size);
    write_head(place, background ? SUBMIT_JOB_BG : SUBMIT_JOB, names_size + NUMBER_SIZE + stretch_size);
    place += HEAD_SIZE;
    memcpy(place, FUNCTION, sizeof FUNCTION);
    if (with_uniques)
        write_unique((char *)place + sizeof FUNCTION, number);
    place[names_size - 1] = 0;
    put_payload(client, number, number);
    jobs[number].time = now;
}

void note_created(uint64_t number, const uint8_t *handle, size_t size)
{
    check_handle(number, handle, size);
    jobs[number].created = true;
}

void do_assigned(struct connection *worker, uint32_t type, const uint8_t *body, size_t size)
{
    const uint8_t *at = body, *end = body + size;
    const uint8_t *handle_end = end_argument(&at, end, "JOB_ASSIGN");
    const uint8_t *function = at;
    const uint8_t *function_end = end_argument(&at, end, "JOB_ASSIGN");
    const uint8_t *unique = at;
    const uint8_t *unique_end = end_argument(&at, end, "JOB_ASSIGN");
    if (type == JOB_ASSIGN_ALL)
        end_argument(&at, end, "JOB_ASSIGN_ALL");

    uint64_t number = read_sign(at, (size_t)(end - at), "workload");
    if (number >= room)
        give_up("a worker got a job that nobody submitted");
    compare_stretch(number, at, "workload");
    if (function_end - function != sizeof FUNCTION - 1 || memcmp(function, FUNCTION, sizeof FUNCTION - 1))
        give_up("job %" PRIu64 " came with another function", number);
    char expected[UNIQUE_SIZE];
    size_t unique_size = with_uniques ? UNIQUE_SIZE : 0;
    write_unique(expected, number);
    if ((size_t)(unique_end - unique) != unique_size || memcmp(unique, expected, unique_size))
        give_up("job %" PRIu64 " came with another unique", number);
    size_t handle_size = (size_t)(handle_end - body);
    check_handle(number, body, handle_size);
    if (jobs[number].assigned)
        give_up("job %" PRIu64 " was assigned twice", number);
    jobs[number].assigned = true;

    uint8_t *place = put(worker, HEAD_SIZE + handle_size + 1);
    write_head(place, WORK_COMPLETE, handle_size + 1 + NUMBER_SIZE + stretch_size);
    memcpy(place + HEAD_SIZE, body, handle_size + 1);
    put_payload(worker, ~number, number);
}

void note_result(uint64_t submitted, const uint8_t *body, size_t size, uint64_t now)
{
    const uint8_t *at = body, *end = body + size;
    const uint8_t *handle_end = end_argument(&at, end, "WORK_COMPLETE");
    uint64_t number = ~read_sign(at, (size_t)(end - at), "result");
    if (number >= submitted)
        give_up("a client got the result of a job that nobody submitted");
    compare_stretch(number, at, "result");
    check_handle(number, body, (size_t)(handle_end - body));
    if (!jobs[number].created)
        give_up("the result of job %" PRIu64 " came before its JOB_CREATED", number);
    if (jobs[number].answered)
        give_up("job %" PRIu64 " was answered twice", number);
    jobs[number].answered = true;
    jobs[number].time = now - jobs[number].time;
}

void close_ledger(uint64_t submitted, uint64_t assigned, uint64_t answered)
{
    uint64_t created_sum = 0, assigned_sum = 0, answered_sum = 0;
    for (uint64_t i = 0; i < submitted; i++) {
        created_sum += jobs[i].created;
        assigned_sum += jobs[i].assigned;
        answered_sum += jobs[i].answered;
    }
    if (created_sum != submitted || assigned_sum != assigned || answered_sum != answered)
        give_up("of %" PRIu64 " jobs %" PRIu64 " were created, %" PRIu64 " assigned (of %" PRIu64 "), "
                "%" PRIu64 " answered (of %" PRIu64 ")",
                submitted, created_sum, assigned_sum, assigned, answered_sum, answered);
}

uint64_t payloads_compared(void)
{
    return compared;
}

static int by_time(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

struct latencies measure_latencies(uint64_t submitted)
{
    uint64_t *times = malloc((submitted ? submitted : 1) * sizeof *times);
    if (!times)
        give_up("no memory for %" PRIu64 " latencies", submitted);
    size_t count = 0;
    for (uint64_t i = 0; i < submitted; i++)
        if (jobs[i].answered)
            times[count++] = jobs[i].time;
    struct latencies latencies = {0};
    if (count) {
        qsort(times, count, sizeof *times, by_time);
        latencies.p50 = (double)times[count / 2] / 1e3;
        latencies.p90 = (double)times[count * 9 / 10] / 1e3;
        latencies.p99 = (double)times[count * 99 / 100] / 1e3;
        latencies.max = (double)times[count - 1] / 1e3;
    }
    free(times);
    return latencies;
}
