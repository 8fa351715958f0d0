/* The floor: what a supervisor can't do without, and nothing else, in C.
 *
 * floor CHILD COUNT [LOG_FOLDER]: starts COUNT children, starts again each one that
 * ends, and copies their output to files when there is a folder for it. SIGTERM ends
 * the children, then this. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char *child;
static pid_t *pids;
static int *outputs, *files;
static int count, events;
static const char *folder;
static char buffer[65536];

static void start(int number) {
    char text[16];
    char *argv[] = {child, text, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    snprintf(text, sizeof text, "%d", number);
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_init(&actions);
    int ends[2] = {-1, -1};
    if (folder) {
        if (pipe2(ends, O_CLOEXEC))
            exit(1);
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        outputs[number] = ends[0];
        struct epoll_event event = {EPOLLIN, {.u32 = (uint32_t)number}};
        epoll_ctl(events, EPOLL_CTL_ADD, ends[0], &event);
    }
    if (posix_spawn(&pids[number], child, &actions, &attributes, argv, environ))
        exit(1);
    posix_spawn_file_actions_destroy(&actions);
    if (folder)
        close(ends[1]);
}

static int copy(int number) {
    int total = 0;
    for (;;) {
        ssize_t size = read(outputs[number], buffer, sizeof buffer);
        if (size == 0) {
            close(outputs[number]);
            return total;
        }
        if (size < 0)
            return total;
        if (write(files[number], buffer, (size_t)size) < 0)
            exit(1);
        total += (int)size;
    }
}

static int number_of(pid_t pid) {
    for (int number = 0; number < count; number++)
        if (pids[number] == pid)
            return number;
    return -1;
}

int main(int argc, char **argv) {
    sigset_t blocked;
    if (argc < 3)
        return 2;
    child = argv[1];
    count = atoi(argv[2]);
    folder = argc > 3 ? argv[3] : NULL;
    pids = calloc((size_t)count + 1, sizeof *pids);
    outputs = calloc((size_t)count + 1, sizeof *outputs);
    files = calloc((size_t)count + 1, sizeof *files);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    int signals = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
    events = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.u32 = UINT32_MAX}};
    epoll_ctl(events, EPOLL_CTL_ADD, signals, &event);
    for (int number = 0; number < count; number++) {
        if (folder) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%d.log", folder, number);
            files[number] = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        }
        start(number);
    }
    for (int ending = 0;;) {
        struct epoll_event ready[256];
        int found = epoll_wait(events, ready, 256, -1), signalled = 0, read_back = 0;
        for (int at = 0; at < found; at++) {
            if (ready[at].data.u32 == UINT32_MAX)
                signalled = 1;
            else
                read_back += copy((int)ready[at].data.u32);
        }
        if (signalled) {
            struct signalfd_siginfo info;
            pid_t pid;
            while (read(signals, &info, sizeof info) > 0)
                if (info.ssi_signo == SIGTERM)
                    ending = 1;
            if (ending) {
                for (int number = 0; number < count; number++)
                    kill(pids[number], SIGTERM);
                while (wait(NULL) > 0 || errno == EINTR)
                    ;
                for (int number = 0; folder && number < count; number++)
                    copy(number);
                return 0;
            }
            while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
                int number = number_of(pid);
                if (number >= 0)
                    start(number);
            }
        } else if (read_back < 16384) {
            usleep(20000);
        }
    }
}
