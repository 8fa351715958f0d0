/* The benchmarks' daemon: it notes when it began, then pauses or writes.
 *
 * What it notes goes into a file that it shares with the harness, so that nobody
 * polls: a counter wakes the harness through a futex once the awaited number is
 * reached. Its number is argv[1], DUENDE_INSTANCE, or the name of its folder. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct header {
    _Atomic uint32_t events, target, reached;
    char rest[52];
};
struct slot {
    uint64_t began, first_write, last_write, written;
    uint32_t pid, count;
    char rest[24];
};

static struct header *header;
static struct slot *slot;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void tell(void) {
    uint32_t count = atomic_fetch_add(&header->events, 1) + 1;
    if (count == atomic_load(&header->target)) {
        atomic_store(&header->reached, 1);
        syscall(SYS_futex, &header->reached, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

static int number_of(int argc, char **argv) {
    const char *instance = getenv("DUENDE_INSTANCE");
    char folder[PATH_MAX];
    if (argc > 1)
        return atoi(argv[1]);
    if (getenv("BENCH_BY_FOLDER") && getcwd(folder, sizeof folder))
        return atoi(basename(folder));
    return instance ? atoi(instance) : 0;
}

/* Every line is its number in ten digits, then letters. */
static void write_line(char *line, size_t size, uint64_t number) {
    size_t done = 0;
    char digits[16];
    snprintf(digits, sizeof digits, "%010llu", (unsigned long long)number);
    memcpy(line, digits, 10);
    while (done < size) {
        ssize_t count = write(1, line + done, size - done);
        if (count < 0)
            _exit(3);
        done += (size_t)count;
    }
}

static void write_all(size_t size, uint64_t lines) {
    char line[4096];
    memset(line, 'x', sizeof line);
    line[size - 1] = '\n';
    slot->first_write = now();
    for (uint64_t number = 0; number < lines; number++)
        write_line(line, size, number);
    slot->last_write = now();
    slot->written = lines;
    tell();
}

static void write_steadily(size_t size, uint64_t every) {
    char line[4096];
    uint64_t next = now();
    memset(line, 'x', sizeof line);
    line[size - 1] = '\n';
    for (uint64_t number = 0;; number++) {
        write_line(line, size, number);
        slot->written = number + 1;
        next += every;
        struct timespec until = {(time_t)(next / 1000000000u),
                                 (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

int main(int argc, char **argv) {
    uint64_t began = now();
    const char *marks = getenv("BENCH_MARKS"), *alive = getenv("BENCH_ALIVE");
    const char *mode = getenv("BENCH_MODE"), *lines = getenv("BENCH_LINES");
    const char *size = getenv("BENCH_SIZE");
    int fd = marks ? open(marks, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return 2;
    off_t length = lseek(fd, 0, SEEK_END);
    header = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    slot = (struct slot *)(header + 1) + number_of(argc, argv);
    /* Held open until the end: the harness sees when the last one is gone. */
    if (alive)
        open(alive, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    slot->pid = (uint32_t)getpid();
    slot->count++;
    slot->began = began;
    tell();
    if (mode && !strcmp(mode, "all"))
        write_all((size_t)atoi(size), strtoull(lines, NULL, 10));
    if (mode && !strcmp(mode, "steady"))
        write_steadily((size_t)atoi(size), strtoull(lines, NULL, 10));
    for (;;)
        pause();
}
