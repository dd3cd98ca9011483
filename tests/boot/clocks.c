/*
 * A clock that runs as it is told, for programs on a machine that shares its kernel's clock with its host (LD_PRELOAD).
 *
 * The file that CLOCKS names holds four numbers, read at each look: between `from` and `until`, seconds of the kernel's
 * monotonic clock, all clocks and all waits run `rate` times as fast, and they stay ahead by that; and the wall clock
 * alone is wrong by `wall` seconds. All programs with the same file agree. (libfaketime knows nothing of the waits that
 * Python makes with sem_clockwait.)
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct hands {
    double from, until, rate, wall;
};
static const struct hands none = {0, 0, 1, 0};
static const volatile struct hands *hands = &none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCKS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        hands = mapped;
}

static struct timespec kernel(clockid_t clock) {
    struct timespec at = {0, 0};
    syscall(SYS_clock_gettime, clock, &at);
    return at;
}

static double seconds(struct timespec at) { return (double)at.tv_sec + (double)at.tv_nsec / 1e9; }

static struct timespec later(struct timespec at, double by) {
    long long whole = (long long)by;
    long long ns = at.tv_nsec + (long long)((by - (double)whole) * 1e9);
    at.tv_sec += whole + ns / 1000000000 - (ns % 1000000000 < 0);
    at.tv_nsec = (ns % 1000000000 + 1000000000) % 1000000000;
    return at;
}

static double ahead(double now) {
    double fast = (now < hands->until ? now : hands->until) - hands->from;
    return fast > 0 ? fast * (hands->rate - 1) : 0;
}

/* So many seconds of the told clock from now: how many are they really? */
static double truly(double left) {
    double now = seconds(kernel(CLOCK_MONOTONIC)), told = now + ahead(now) + left;
    double fast = (hands->until - hands->from) * hands->rate, into = told - hands->from;
    double then = into <= 0 ? told : into <= fast ? hands->from + into / hands->rate : hands->until + into - fast;
    return left > 0 && then > now ? then - now : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (syscall(SYS_clock_gettime, clock, at))
        return -1;
    if (clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID || clock < 0)
        return 0;
    double by = ahead(seconds(kernel(CLOCK_MONOTONIC)));
    *at = later(*at, clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? by + hands->wall : by);
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* A moment of the told clock, as one of the kernel's. */
static struct timespec moment(clockid_t clock, const struct timespec *told) {
    struct timespec now;
    clock_gettime(clock, &now);
    return later(kernel(clock), truly(seconds(*told) - seconds(now)));
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int sem_clockwait(sem_t *restrict sem, clockid_t clock, const struct timespec *restrict until) {
    NEXT(sem_clockwait);
    struct timespec then = moment(clock, until);
    return next(sem, clock, &then);
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
    NEXT(sem_timedwait);
    struct timespec then = moment(CLOCK_REALTIME, until);
    return next(sem, &then);
}

/* Python has its conditions wait by the monotonic clock. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static __typeof__(&pthread_cond_timedwait) next;
    if (!next) /* the older one of the same name is another condition */
        next = (__typeof__(next))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        next = (__typeof__(next))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec then = moment(CLOCK_MONOTONIC, until);
    return next(cond, mutex, &then);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *span, struct timespec *rest) {
    NEXT(clock_nanosleep);
    if (flags & TIMER_ABSTIME) {
        struct timespec then = moment(clock, span);
        return next(clock, flags, &then, rest);
    }
    struct timespec left = later((struct timespec){0, 0}, truly(seconds(*span)));
    return next(clock, flags, &left, rest);
}

static int ms(int told) { return told <= 0 ? told : 1 + (int)(truly(told / 1e3) * 1e3); }

int poll(struct pollfd *files, nfds_t count, int timeout) {
    NEXT(poll);
    return next(files, count, ms(timeout));
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
    NEXT(epoll_wait);
    return next(epoll, events, count, ms(timeout));
}

int select(int count, fd_set *restrict in, fd_set *restrict out, fd_set *restrict other, struct timeval *restrict timeout) {
    NEXT(select);
    if (!timeout)
        return next(count, in, out, other, timeout);
    double left = truly((double)timeout->tv_sec + (double)timeout->tv_usec / 1e6);
    struct timeval truly_left = {(time_t)left, (suseconds_t)((left - (double)(time_t)left) * 1e6)};
    return next(count, in, out, other, &truly_left);
}
