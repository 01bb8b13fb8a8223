/* bin/geartrain as a program of its own: `python -P -m geartrain ARGUMENTS`, run within this process.

A script's process is the program python, so whoever looks for a daemon by its file (start-stop-daemon --exec) does not
find it. This one is /proc/PID/exe itself: it loads the shared libpython that the Python beside it runs on.

Where that is another Python than it was built for, or the library is gone, it becomes that Python by exec, as a script
does. setup.py says PYTHON_NAME ("python3.11"), PYTHON (that Python's file) and LIBPYTHON.
*/

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*Main)(int, char **);

/* The Python of the environment that this file is in; without one there, that of the build. */
static char *find_python(void)
{
    static char path[PATH_MAX + sizeof PYTHON_NAME];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    char *slash;

    if (length > 0) {
        path[length] = 0;
        slash = strrchr(path, '/');
        if (slash != NULL) {
            strcpy(slash + 1, PYTHON_NAME);
            if (access(path, X_OK) == 0)
                return path;
        }
    }
    return PYTHON;
}

static Main find_main(const char *python)
{
    char *file = realpath(python, NULL);
    int is_ours = file != NULL && strcmp(file, PYTHON) == 0;
    void *library;

    free(file);
    if (!is_ours)
        return NULL;
    library = dlopen(LIBPYTHON, RTLD_NOW | RTLD_GLOBAL); /* extension modules take their symbols from it */
    return library == NULL ? NULL : (Main)dlsym(library, "Py_BytesMain");
}

int main(int argc, char **argv)
{
    static char *before[] = {NULL, "-P", "-m", "geartrain"};
    int count = sizeof before / sizeof *before;
    char **words = calloc((size_t)(count + argc) + 1, sizeof *words);
    Main python_main;

    if (words == NULL) {
        perror("geartrain");
        return 1;
    }
    before[0] = find_python();
    memcpy(words, before, sizeof before);
    if (argc > 1)
        memcpy(words + count, argv + 1, (size_t)(argc - 1) * sizeof *words);
    else
        argc = 1;
    python_main = find_main(before[0]);
    if (python_main != NULL)
        return python_main(count + argc - 1, words);
    execv(before[0], words);
    fprintf(stderr, "geartrain: can't run %s: %s\n", before[0], strerror(errno));
    return 127;
}
