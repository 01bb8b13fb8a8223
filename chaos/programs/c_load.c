/* A client and a worker on libgearman, which tell files of their own what was acknowledged and what was done.
 *
 *     c_load client NAME FILE SERVERS MILLISECONDS
 *     c_load worker NAME FILE SERVERS FUNCTION...
 *
 * See load.py for the workloads and the files. A client whose submission failed goes on with the next server, and with
 * another job: that one was not acknowledged, and is nobody's promise. */
#include <fcntl.h>
#include <libgearman/gearman.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT = 2000, FAILED = 4096 }; /* milliseconds; ids whose first attempt has failed */

static int file;
static const char *name;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void pause_ms(long milliseconds)
{
    struct timespec length = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&length, NULL);
}

static void tell(const char *format, ...)
{
    char line[400];
    va_list words;
    va_start(words, format);
    int size = vsnprintf(line, sizeof line, format, words);
    va_end(words);
    if (write(file, line, size) != size)
        exit(1);
}

/* ── client ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* "a,b,c" with another one first */
static void turn(char *servers)
{
    char *comma = strchr(servers, ',');
    if (!comma)
        return;
    size_t first = comma - servers;
    char one[100];
    snprintf(one, sizeof one, "%.*s", (int)first, servers);
    memmove(servers, comma + 1, strlen(comma));
    strcat(servers, ",");
    strcat(servers, one);
}

static gearman_return_t submit(gearman_client_st *client, int number, const char *id, char *handle, double *ready)
{
    char workload[100];
    int fails = number % 7 == 0, delay = number % 10 == 1 ? 1 + number % 3 : 0;
    int size = snprintf(workload, sizeof workload, "%s:%d:%d", id, number % 5, fails);
    const char *function = fails ? "retry" : "quick", *unique = number % 3 ? id : NULL;
    if (delay) {
        time_t due = time(NULL) + delay + 1;
        gearman_task_attr_t when = gearman_task_attr_init_epoch(due, GEARMAN_JOB_PRIORITY_NORMAL);
        gearman_argument_t argument = gearman_argument_make(NULL, 0, workload, size);
        *ready = now() + delay + 1;
        gearman_task_st *task = gearman_execute(client, function, strlen(function), unique, unique ? strlen(unique) : 0,
                                                &when, &argument, NULL);
        if (!task)
            return GEARMAN_ERRNO;
        snprintf(handle, GEARMAN_JOB_HANDLE_SIZE, "%s", gearman_task_job_handle(task));
        gearman_return_t result = gearman_task_return(task);
        gearman_task_free(task);
        return handle[0] ? GEARMAN_SUCCESS : result;
    }
    switch (number % 4) {
    case 0: return gearman_client_do_high_background(client, function, unique, workload, size, handle);
    case 1: return gearman_client_do_low_background(client, function, unique, workload, size, handle);
    default: return gearman_client_do_background(client, function, unique, workload, size, handle);
    }
}

static void be_client(char *servers, long pause)
{
    for (int number = 1;;) {
        gearman_client_st *client = gearman_client_create(NULL);
        gearman_client_add_servers(client, servers);
        gearman_client_set_timeout(client, TIMEOUT);
        gearman_return_t result = GEARMAN_SUCCESS;
        for (int left = 200; left && result == GEARMAN_SUCCESS; left--, number++) {
            char id[50], handle[GEARMAN_JOB_HANDLE_SIZE] = "";
            double ready = 0;
            snprintf(id, sizeof id, "%s-%d", name, number);
            result = submit(client, number, id, handle, &ready);
            double at = now();
            if (result == GEARMAN_SUCCESS)
                tell("%.6f A %s %s %.6f\n", at, id, handle, ready > at ? ready : at);
            pause_ms(pause);
        }
        gearman_client_free(client);
        turn(servers); /* each server in its turn, and the next one after a failure */
    }
}

/* ── worker ───────────────────────────────────────────────────────────────────────────────────────────────────── */

static void *work(gearman_job_st *job, void *context, size_t *size, gearman_return_t *result)
{
    static char failed[FAILED][50];
    static int count;
    char workload[100] = "", id[50] = "";
    int milliseconds = 0, fails = 0;
    (void)context;
    *size = 0;
    snprintf(workload, sizeof workload, "%.*s", (int)gearman_job_workload_size(job),
             (const char *)gearman_job_workload(job));
    sscanf(workload, "%49[^:]:%d:%d", id, &milliseconds, &fails);
    tell("%.6f B %s %s\n", now(), id, gearman_job_handle(job));
    pause_ms(milliseconds);
    for (int i = 0; fails && i < (count < FAILED ? count : FAILED); i++)
        if (!strcmp(failed[i], id))
            fails = 0;
    if (fails)
        strcpy(failed[count++ % FAILED], id);
    tell("%.6f %c %s %s\n", now(), fails ? 'F' : 'D', id, gearman_job_handle(job));
    *result = fails ? GEARMAN_WORK_FAIL : GEARMAN_SUCCESS;
    return NULL;
}

static void be_worker(const char *servers, char **functions)
{
    for (;;) {
        gearman_worker_st *worker = gearman_worker_create(NULL);
        gearman_worker_add_servers(worker, servers);
        gearman_worker_set_timeout(worker, TIMEOUT);
        for (char **function = functions; *function; function++)
            gearman_worker_add_function(worker, *function, 0, work, NULL);
        gearman_return_t result;
        do
            result = gearman_worker_work(worker);
        while (result == GEARMAN_SUCCESS || result == GEARMAN_WORK_FAIL || result == GEARMAN_TIMEOUT ||
               result == GEARMAN_NO_JOBS || result == GEARMAN_IO_WAIT);
        gearman_worker_free(worker);
        pause_ms(100);
    }
}

int main(int count, char **words)
{
    if (count < 6)
        return 2;
    name = words[2];
    file = open(words[3], O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (words[1][0] == 'c')
        be_client(words[4], atol(words[5]));
    else
        be_worker(words[4], words + 5);
}
