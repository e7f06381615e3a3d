/*
 * The clock of a server under test: LD_PRELOAD of this makes time stand still at the microseconds since 1970 that the
 * file named by TOKENPOOL_TEST_CLOCK holds, 8 bytes in the machine's order, until they are written anew. Monotonic clocks
 * go with it, because Valkey reckons the time of day from one.
 *
 * libfaketime would do the same, but jemalloc, with which Debian links Redis, asks for the time before libfaketime is
 * ready. Nothing here allocates or looks up symbols.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *micros;

__attribute__((constructor)) static void open_clock(void) {
  const char *path = getenv("TOKENPOOL_TEST_CLOCK");
  int file = path ? open(path, O_RDONLY) : -1;
  void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (mapped == MAP_FAILED) _exit(97);
  micros = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int is_processor_time = clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID || clock < 0;
  if (!micros || is_processor_time) return (int)syscall(SYS_clock_gettime, clock, time);
  int64_t now = *micros;
  time->tv_sec = now / 1000000;
  time->tv_nsec = now % 1000000 * 1000;
  return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  if (seconds) *seconds = now.tv_sec;
  return now.tv_sec;
}
