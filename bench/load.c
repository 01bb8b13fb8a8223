/* load: drives any Gearman job server over the wire, playing clients and workers, and measures it.
 *
 * A run has a part that is prepared (connections, sleeping workers, a filled queue) and a part that is timed. Which
 * of the four kinds of run it is follows from the options:
 *
 *   workers and clients    end to end: clients submit, workers do, until all is done
 *   no workers             submission alone: until every job has its JOB_CREATED
 *   --queued               drain: the queue is filled first, then only the workers' rounds of grabs are timed
 *   no jobs                nothing is timed; the connections are held, so that their memory can be read
 *
 * The result is one line of JSON on standard output. If anything was wrong (a job lost or done twice, a payload
 * damaged, an ERROR, silence) there is no result, but a message and exit status 1.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "peers.h"

struct plan {
    uint64_t port;
    uint64_t clients, outstanding, refill, workers, silent;
    uint64_t jobs, size, backlog, seconds;
    uint64_t queued, grabs, rounds;
    uint64_t progress, limit;
    bool background, uniques, marks;
};

static const char usage[] =
    "usage: load --port PORT [options]\n"
    "  --clients N      client connections (1)\n"
    "  --outstanding N  jobs a client has outstanding (1)\n"
    "  --refill N       a client submits again when N of these are free (1)\n"
    "  --workers N      worker connections (0)\n"
    "  --silent N       connections that say nothing (0)\n"
    "  --jobs N         jobs to submit, at most (0)\n"
    "  --backlog N      submit no more while N jobs wait for a worker (0: no limit)\n"
    "  --seconds N      submit no more after N seconds (0: no limit)\n"
    "  --size BYTES     of a workload and of a result (100)\n"
    "  --background     submit background jobs\n"
    "  --uniques        each job has its own unique (without: an empty one)\n"
    "  --queued N       fill the queue with N background jobs before the timed part, instead of --jobs\n"
    "  --grabs N        jobs the workers take and complete in a round (all that are queued)\n"
    "  --rounds N       rounds; between them the queue is filled up again, untimed (1)\n"
    "  --progress N     every N seconds of a run end to end, print how many jobs were created and assigned\n"
    "  --limit N        seconds for the whole run; a job can be lost while everybody goes on talking (300)\n"
    "  --marks          print 'start' before and 'stop' after the timed part, and wait for a line on standard input\n"
    "                   after each, so that another process can look at the server at these moments\n";

static uint64_t read_count(const char *option, const char *text)
{
    char *end;
    uint64_t count = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end)
        give_up("--%s takes a number, not '%s'", option, text);
    return count;
}

static struct plan read_options(int argc, char **argv)
{
    struct plan plan = {.clients = 1, .outstanding = 1, .refill = 1, .size = 100, .rounds = 1, .limit = 300};
    int background = 0, uniques = 0, marks = 0;
    uint64_t *const counts[] = {&plan.port, &plan.clients, &plan.outstanding, &plan.refill, &plan.workers,
                                &plan.silent, &plan.jobs, &plan.backlog, &plan.seconds, &plan.size, &plan.queued,
                                &plan.grabs, &plan.rounds, &plan.progress, &plan.limit};
    const struct option options[] = {
        {"port", required_argument, NULL, 0}, {"clients", required_argument, NULL, 0},
        {"outstanding", required_argument, NULL, 0}, {"refill", required_argument, NULL, 0},
        {"workers", required_argument, NULL, 0}, {"silent", required_argument, NULL, 0},
        {"jobs", required_argument, NULL, 0}, {"backlog", required_argument, NULL, 0},
        {"seconds", required_argument, NULL, 0}, {"size", required_argument, NULL, 0},
        {"queued", required_argument, NULL, 0}, {"grabs", required_argument, NULL, 0},
        {"rounds", required_argument, NULL, 0}, {"progress", required_argument, NULL, 0},
        {"limit", required_argument, NULL, 0}, {"background", no_argument, &background, 1},
        {"uniques", no_argument, &uniques, 1}, {"marks", no_argument, &marks, 1}, {"help", no_argument, NULL, 'h'}, {0},
    };
    int index, found;
    while ((found = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (found == 'h') {
            fputs(usage, stdout);
            exit(0);
        }
        if (found == '?')
            give_up("see load --help");
        if (options[index].has_arg)
            *counts[index] = read_count(options[index].name, optarg);
    }
    plan.background = background || plan.queued;
    plan.uniques = uniques;
    plan.marks = marks;
    return plan;
}

static void check_plan(const struct plan *plan)
{
    if (!plan->port || plan->port > 65535)
        give_up("--port takes the server's port (1 to 65535)");
    if (plan->size < SMALLEST_WORKLOAD)
        give_up("--size %" PRIu64 " is too small: a workload carries its number, at least %d bytes",
                plan->size, SMALLEST_WORKLOAD);
    if (!plan->refill || plan->refill > plan->outstanding)
        give_up("--refill takes a number from 1 to the number of outstanding jobs");
    if (plan->queued && (!plan->workers || plan->jobs || plan->seconds))
        give_up("--queued needs --workers, and no --jobs or --seconds");
    if (plan->queued && (!plan->rounds || plan->grabs > plan->queued))
        give_up("--grabs is at most the number of queued jobs, in at least one round");
    if (plan->jobs && !plan->workers && !plan->background)
        give_up("foreground jobs need --workers");
    if ((plan->jobs || plan->queued) && !plan->clients)
        give_up("jobs need --clients");
}

/* Tells the process that watches the server that a moment has come, and waits until it has looked. */
static void mark(const struct plan *plan, const char *moment)
{
    if (!plan->marks)
        return;
    puts(moment);
    fflush(stdout);
    int byte;
    do
        byte = getchar();
    while (byte != '\n' && byte != EOF);
}

static void connect_all(const struct plan *plan)
{
    open_loop(plan->clients + plan->workers + plan->silent);
    connect_clients(plan->clients, (uint16_t)plan->port);
    connect_workers(plan->workers, (uint16_t)plan->port);
    connect_silent(plan->silent, (uint16_t)plan->port);
    /* Before a drain the workers only wait for ECHO_RES; otherwise they find no job and go to sleep. */
    traffic.grabs_left = plan->queued ? 0 : NO_LIMIT;
    traffic.lying_down = true;
    start_workers();
    while (traffic.questions)
        turn("the workers' registration");
    traffic.lying_down = false;
}

static void submit_all(uint64_t jobs)
{
    traffic.job_limit = jobs;
    start_clients();
    while (traffic.created < traffic.job_limit)
        turn("JOB_CREATED");
}

static void show_progress(uint64_t every)
{
    static uint64_t next;
    uint64_t now = now_ns();
    if (!every || now < next)
        return;
    if (next) {
        printf("progress %" PRIu64 " %" PRIu64 "\n", traffic.created, traffic.assigned);
        fflush(stdout);
    }
    next = now + every * 1000000000u;
}

static void run_end_to_end(uint64_t progress)
{
    start_clients();
    if (traffic.background) {
        while (traffic.created < traffic.job_limit || traffic.assigned < traffic.job_limit || traffic.questions) {
            turn("jobs for the workers");
            start_clients();    /* those that a full backlog held back */
            show_progress(progress);
        }
    } else {
        while (traffic.answered < traffic.job_limit) {
            turn("results for the clients");
            show_progress(progress);
        }
    }
}

/* Takes and completes jobs from the full queue round by round, and gives the time of the rounds alone. */
static uint64_t run_rounds(const struct plan *plan)
{
    uint64_t grabs = plan->grabs ? plan->grabs : plan->queued;
    uint64_t elapsed = 0;
    for (uint64_t round = 0; round < plan->rounds; round++) {
        if (round)
            submit_all(traffic.submitted + grabs);
        uint64_t start = now_ns();
        traffic.grabs_left = grabs;
        start_workers();
        while (traffic.questions)
            turn("jobs from the queue");
        elapsed += now_ns() - start;
    }
    return elapsed;
}

static void run_out_of_time(int signal_number)
{
    (void)signal_number;
    give_up("no end within the time limit: %" PRIu64 " jobs submitted, %" PRIu64 " created, %" PRIu64 " done, %" PRIu64
            " answered", traffic.submitted, traffic.created, traffic.assigned, traffic.answered);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void report(uint64_t jobs, double seconds, double cpu)
{
    struct latencies latencies = measure_latencies(traffic.submitted);
    printf("{\"jobs\": %" PRIu64 ", \"seconds\": %.6f, \"jobs_per_second\": %.1f, \"load_cpu_seconds\": %.3f, ",
           jobs, seconds, jobs ? (double)jobs / seconds : 0.0, cpu);
    printf("\"submitted\": %" PRIu64 ", \"done_once\": %" PRIu64 ", \"answered_once\": %" PRIu64 ", "
           "\"payloads_compared\": %" PRIu64 ", \"latency_us\": ",
           traffic.submitted, traffic.assigned, traffic.answered, payloads_compared());
    if (traffic.answered)
        printf("{\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}}\n",
               latencies.p50, latencies.p90, latencies.p99, latencies.max);
    else
        printf("null}\n");
}

/* The part that is timed, from start to end; between rounds it leaves out what is not. Gives nanoseconds. */
static uint64_t run_timed(const struct plan *plan)
{
    if (plan->queued)
        return run_rounds(plan);
    uint64_t start = now_ns();
    if (plan->seconds)
        traffic.deadline = start + plan->seconds * 1000000000u;
    traffic.job_limit = plan->jobs;
    if (plan->workers)
        run_end_to_end(plan->progress);
    else
        submit_all(plan->jobs);
    return now_ns() - start;
}

int main(int argc, char **argv)
{
    struct plan plan = read_options(argc, argv);
    check_plan(&plan);
    signal(SIGALRM, run_out_of_time);
    alarm((unsigned)plan.limit);
    uint64_t grabs = plan.rounds * (plan.grabs ? plan.grabs : plan.queued);
    uint64_t most = plan.queued ? plan.queued + grabs : plan.jobs;
    open_ledger(most, plan.size, plan.uniques);
    traffic.background = plan.background;
    traffic.backlog = plan.backlog;
    traffic.window = plan.outstanding;
    traffic.refill = plan.refill;

    if (!most)                  /* the connections themselves are what is looked at */
        mark(&plan, "start");
    connect_all(&plan);
    if (plan.queued)
        submit_all(plan.queued);
    if (most)
        mark(&plan, "start");
    double cpu = cpu_seconds();
    uint64_t elapsed = run_timed(&plan);
    cpu = cpu_seconds() - cpu;
    mark(&plan, "stop");

    uint64_t done = plan.queued ? grabs : plan.workers ? traffic.submitted : 0;
    close_ledger(traffic.submitted, done, plan.background ? 0 : done);
    report(plan.queued ? grabs : traffic.submitted, (double)elapsed / 1e9, cpu);
    return 0;
}
