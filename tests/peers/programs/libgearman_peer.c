/* A client and a worker on libgearman, driven by the tests line by line.

   client HOST PORT plain|exceptions      reads requests from stdin, answers with events on stdout
   worker HOST PORT ID NAME=BEHAVIOUR...  serves functions, prints a line for each job it takes

   The requests, events and behaviours are listed in ../peer.py; every peer of the tests speaks them. */

#define _GNU_SOURCE
#include <libgearman/gearman.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *word, const void *bytes, size_t size)
{
  const unsigned char *byte = bytes;
  printf("%s\t", word);
  for (size_t i = 0; i < size; i++)
    printf("%02x", byte[i]);
  printf("\n");
  fflush(stdout);
}

static unsigned char *from_hex(const char *hex, size_t *size)
{
  static const char digits[] = "0123456789abcdef";
  *size = strlen(hex) / 2;
  unsigned char *bytes = malloc(*size + 1);
  for (size_t i = 0; i < *size; i++)
    bytes[i] = (strchr(digits, hex[2 * i]) - digits) << 4 | (strchr(digits, hex[2 * i + 1]) - digits);
  return bytes;
}

static char *reversed(const char *text, size_t size)
{
  char *result = malloc(size + 1);
  for (size_t i = 0; i < size; i++)
    result[i] = text[size - 1 - i];
  result[size] = 0;
  return result;
}

/* ---- client ---- */

static bool ended; /* the job at hand had its last event */
static int correct; /* results of a `many` request that were right */

static void say_task(const char *word, gearman_task_st *task)
{
  say(word, gearman_task_data(task), gearman_task_data_size(task));
}

static gearman_return_t on_created(gearman_task_st *task)
{
  if (gearman_task_context(task) == NULL)
  {
    printf("created\t%s\n", gearman_task_job_handle(task));
    fflush(stdout);
  }
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_data(gearman_task_st *task)
{
  say_task("data", task);
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_warning(gearman_task_st *task)
{
  say_task("warning", task);
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_status(gearman_task_st *task)
{
  printf("status\t%u\t%u\n", gearman_task_numerator(task), gearman_task_denominator(task));
  fflush(stdout);
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_complete(gearman_task_st *task)
{
  const char *expected = gearman_task_context(task);
  if (expected == NULL)
    say_task("complete", task);
  else if (gearman_task_data_size(task) == strlen(expected)
           && memcmp(gearman_task_data(task), expected, strlen(expected)) == 0)
    correct++;
  ended = true;
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_exception(gearman_task_st *task)
{
  say_task("exception", task);
  ended = true;
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_fail(gearman_task_st *task)
{
  (void)task;
  say("fail", "", 0);
  ended = true;
  return GEARMAN_SUCCESS;
}

typedef gearman_task_st *add_task_fn(gearman_client_st *, gearman_task_st *, void *, const char *,
                                     const char *, const void *, size_t, gearman_return_t *);

static add_task_fn *way_to_add(bool background, const char *priority)
{
  if (strcmp(priority, "high") == 0)
    return background ? gearman_client_add_task_high_background : gearman_client_add_task_high;
  if (strcmp(priority, "low") == 0)
    return background ? gearman_client_add_task_low_background : gearman_client_add_task_low;
  return background ? gearman_client_add_task_background : gearman_client_add_task;
}

static void run_tasks(gearman_client_st *client, bool background)
{
  ended = background;
  gearman_return_t result = gearman_client_run_tasks(client);
  if (gearman_failed(result) || !ended)
    say("error", gearman_client_error(client), strlen(gearman_client_error(client)));
  gearman_client_task_free_all(client);
}

static void submit(gearman_client_st *client, bool background, char **words)
{
  const char *priority = words[1], *function = words[2], *unique = words[3];
  size_t size;
  unsigned char *workload = from_hex(words[4], &size);
  gearman_return_t result;
  /* The library refuses a workload of no bytes unless it has no address either. */
  way_to_add(background, priority)(client, NULL, NULL, function, *unique ? unique : NULL,
                                   size ? workload : NULL, size, &result);
  run_tasks(client, background);
  free(workload);
}

static void many(gearman_client_st *client, int count, const char *function)
{
  char **texts = calloc(2 * count, sizeof(char *));
  for (int i = 0; i < count; i++)
  {
    gearman_return_t result;
    if (asprintf(&texts[2 * i], "number %d", i) < 0)
      abort();
    texts[2 * i + 1] = reversed(texts[2 * i], strlen(texts[2 * i]));
    gearman_client_add_task(client, NULL, texts[2 * i + 1], function, NULL, texts[2 * i],
                            strlen(texts[2 * i]), &result);
  }
  correct = 0;
  run_tasks(client, false);
  printf("correct\t%d\n", correct);
  fflush(stdout);
  for (int i = 0; i < 2 * count; i++)
    free(texts[i]);
  free(texts);
}

static void status(gearman_client_st *client, const char *handle)
{
  bool known, running;
  uint32_t numerator, denominator;
  if (gearman_failed(gearman_client_job_status(client, handle, &known, &running, &numerator, &denominator)))
    say("error", gearman_client_error(client), strlen(gearman_client_error(client)));
  else
    printf("known\t%d\t%d\t%u\t%u\n", known, running, numerator, denominator);
  fflush(stdout);
}

static int be_client(const char *host, int port, bool exceptions)
{
  gearman_client_st *client = gearman_client_create(NULL);
  gearman_client_add_server(client, host, port);
  if (exceptions)
    gearman_client_set_server_option(client, "exceptions", strlen("exceptions"));
  gearman_client_set_created_fn(client, on_created);
  gearman_client_set_data_fn(client, on_data);
  gearman_client_set_warning_fn(client, on_warning);
  gearman_client_set_status_fn(client, on_status);
  gearman_client_set_complete_fn(client, on_complete);
  gearman_client_set_exception_fn(client, on_exception);
  gearman_client_set_fail_fn(client, on_fail);

  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0)
  {
    char *words[6] = {0}, *rest = line;
    line[strcspn(line, "\n")] = 0;
    for (int i = 0; i < 6 && rest != NULL; i++)
      words[i] = strsep(&rest, "\t");
    if (strcmp(words[0], "run") == 0)
      submit(client, false, words);
    else if (strcmp(words[0], "background") == 0)
      submit(client, true, words);
    else if (strcmp(words[0], "many") == 0)
      many(client, atoi(words[1]), words[2]);
    else if (strcmp(words[0], "status") == 0)
      status(client, words[1]);
  }
  gearman_client_free(client);
  return 0;
}

/* ---- worker ---- */

static void *serve(gearman_job_st *job, void *context, size_t *result_size, gearman_return_t *result)
{
  static bool gave_back;
  static int served;
  const char *behaviour = context;
  const char *workload = gearman_job_workload(job);
  size_t size = gearman_job_workload_size(job);
  say("taken", workload, size < 16 ? size : 16);

  if (strncmp(behaviour, "twice-", 6) == 0)
    behaviour = served++ < 2 ? behaviour + 6 : "reverse";
  if (strcmp(behaviour, "late") == 0)
  {
    usleep(1500000);
    behaviour = "reverse";
  }
  if (strcmp(behaviour, "reverse") == 0 || (strcmp(behaviour, "giveback") == 0 && gave_back))
  {
    *result_size = size;
    return reversed(workload, size);
  }
  if (strcmp(behaviour, "talk") == 0)
  {
    gearman_job_send_data(job, "first", 5);
    gearman_job_send_warning(job, "careful", 7);
    gearman_job_send_status(job, 3, 4);
    *result_size = 4;
    return strdup("last");
  }
  if (strcmp(behaviour, "giveback") == 0)
  {
    gave_back = true;
    *result = GEARMAN_LOST_CONNECTION; /* makes the library hang up, for the server to queue the job again */
  }
  else if (strcmp(behaviour, "raise") == 0)
  {
    gearman_job_send_exception(job, workload, size);
    *result = GEARMAN_WORK_EXCEPTION;
  }
  else if (strcmp(behaviour, "stall") == 0)
  {
    gearman_job_send_status(job, 1, 9);
    for (;;)
      pause();
  }
  else
    *result = GEARMAN_WORK_FAIL;
  return NULL;
}

static int be_worker(const char *host, int port, const char *id, char **functions)
{
  gearman_worker_st *worker = gearman_worker_create(NULL);
  gearman_worker_add_server(worker, host, port);
  gearman_worker_set_identifier(worker, id, strlen(id));
  for (; *functions != NULL; functions++)
  {
    char *behaviour = strchr(*functions, '=');
    *behaviour++ = 0;
    gearman_worker_add_function(worker, *functions, 0, serve, behaviour);
  }
  for (;;)
  {
    gearman_return_t result = gearman_worker_work(worker);
    bool is_ours = result == GEARMAN_WORK_FAIL || result == GEARMAN_WORK_EXCEPTION; /* what serve() has said */
    if (gearman_failed(result) && !is_ours && result != GEARMAN_WORK_ERROR && result != GEARMAN_LOST_CONNECTION)
      say("error", gearman_worker_error(worker), strlen(gearman_worker_error(worker)));
    if (result == GEARMAN_COULD_NOT_CONNECT || result == GEARMAN_NO_SERVERS)
      return 1;
  }
}

int main(int count, char **words)
{
  if (count > 4 && strcmp(words[1], "client") == 0)
    return be_client(words[2], atoi(words[3]), strcmp(words[4], "exceptions") == 0);
  if (count > 5 && strcmp(words[1], "worker") == 0)
    return be_worker(words[2], atoi(words[3]), words[4], words + 5);
  fprintf(stderr, "usage: client HOST PORT plain|exceptions, or worker HOST PORT ID NAME=BEHAVIOUR...\n");
  return 2;
}
