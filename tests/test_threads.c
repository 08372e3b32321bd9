/* The thread pool: every item is done once, a thread that has taken none is not waited for, sleepers wake; and how many cores
 * control groups allow. */
#define _GNU_SOURCE /* RTLD_NEXT, sched_setaffinity */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "platform/quota.h"
#include "platform/threads.h"

enum { ITEMS = 1000, THREADS = 4 };

/* ---- a pthread_create that can be made to fail, or to start threads that do not get to run ---- */

static int creations_left = -1; /* -1: as many as wanted */
static bool hold;
static sem_t held;

typedef struct Start {
  void *(*main)(void *);
  void *context;
} Start;

static void *start_held(void *context) {
  const Start start = *(Start *)context;
  free(context);
  while (sem_wait(&held) != 0) continue;
  return start.main(start.context);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *context) {
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
  if (creations_left == 0) return EAGAIN;
  if (creations_left > 0) --creations_left;
  if (!hold) return real(thread, attributes, main, context);
  Start *start = malloc(sizeof *start);
  *start = (Start){main, context};
  return real(thread, attributes, start_held, start);
}

/* ---- the pool ---- */

/* Plain memory, so that the thread sanitizer notices if the start and end of a call do not order the accesses. */
typedef struct Work {
  int count; /* of the pool's threads */
  size_t items;
  int done[ITEMS];    /* how often each item ran */
  int by[THREADS];    /* items by thread; each thread writes its own */
  atomic_bool others; /* a thread other than 0 has run an item */
  atomic_int inside;
} Work;

static NitiThreads *open_pool(int count) {
  NitiThreads *threads;
  assert_int_equal(niti_threads_open(&threads, count), NITI_OK);
  return threads;
}

static void nap(long milliseconds) {
  const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  (void)nanosleep(&time, NULL);
}

static void count_item(void *context, size_t thread, size_t item) {
  Work *work = context;
  ++work->done[item];
  ++work->by[thread];
}

static void check_once(const Work *work, int calls) {
  int total = 0;
  for (size_t i = 0; i < ITEMS; ++i) assert_int_equal(work->done[i], i < work->items ? calls : 0);
  for (int t = 0; t < THREADS; ++t) total += work->by[t];
  assert_int_equal(total, (int)work->items * calls);
}

static void test_every_item_once(void **state) {
  static const size_t counts[] = {0, 1, 2, 3, 7, 64, ITEMS};
  (void)state;
  for (int count = 1; count <= THREADS; ++count) {
    NitiThreads *threads = open_pool(count);
    assert_int_equal(niti_threads_count(threads), count);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
      Work work = {.items = counts[c]};
      for (int call = 0; call < 500; ++call) niti_threads_run(threads, count_item, &work, counts[c]);
      check_once(&work, 500);
      for (int t = count; t < THREADS; ++t) assert_int_equal(work.by[t], 0);
    }
    niti_threads_close(threads);
  }
}

/* Calls between which the workers fall asleep, some at the very moment of the next call. */
static void test_sleepers_wake(void **state) {
  (void)state;
  NitiThreads *threads = open_pool(THREADS);
  Work work = {.items = 20};
  for (int call = 0; call < 300; ++call) {
    niti_threads_run(threads, count_item, &work, work.items);
    const struct timespec gap = {0, 1000 * (call * 7 % 300)};
    (void)nanosleep(&gap, NULL);
  }
  check_once(&work, 300);
  niti_threads_close(threads);
}

/* Returns once a thread other than 0 has run an item, or after ten seconds. Of many items the caller may do the first one alone.
 */
static void wait_for_others(void *context, size_t thread, size_t item) {
  Work *work = context;
  const int patience = item == 0 && work->items > 2 ? 1 : 10000;
  if (thread > 0) atomic_store(&work->others, true);
  for (int i = 0; i < patience && !atomic_load(&work->others); ++i) nap(1);
}

static void test_sleepers_help(void **state) {
  (void)state;
  NitiThreads *threads = open_pool(2);
  for (size_t items = 2; items <= 1000; items += 998) {
    Work work = {.items = items};
    nap(50);
    niti_threads_run(threads, wait_for_others, &work, items);
    assert_true(atomic_load(&work.others));
  }
  niti_threads_close(threads);
}

/* An item that another thread is working on is waited for, however long it takes. */
static void slow_item(void *context, size_t thread, size_t item) {
  Work *work = context;
  if (thread > 0) {
    atomic_store(&work->others, true);
    nap(20);
  } else {
    for (int i = 0; i < 10000 && !atomic_load(&work->others); ++i) nap(1);
  }
  ++work->done[item];
}

static void test_held_items_are_waited_for(void **state) {
  (void)state;
  NitiThreads *threads = open_pool(2);
  for (int call = 0; call < 5; ++call) {
    Work work = {.items = 2};
    niti_threads_run(threads, slow_item, &work, 2);
    assert_int_equal(work.done[0], 1);
    assert_int_equal(work.done[1], 1);
  }
  niti_threads_close(threads);
}

/* Workers that exist, but get no core: every call ends without them. */
static void test_absent_workers_are_not_waited_for(void **state) {
  (void)state;
  assert_int_equal(sem_init(&held, 0, 0), 0);
  hold = true;
  NitiThreads *threads = open_pool(3);
  hold = false;
  Work work = {.items = 64};
  for (int call = 0; call < 200; ++call) niti_threads_run(threads, count_item, &work, work.items);
  check_once(&work, 200);
  assert_int_equal(work.by[0], 64 * 200);
  (void)sem_post(&held); /* one comes late, the other as the pool closes */
  for (int call = 0; call < 200; ++call) niti_threads_run(threads, count_item, &work, work.items);
  check_once(&work, 400);
  (void)sem_post(&held);
  niti_threads_close(threads);
  (void)sem_destroy(&held);
}

static void test_fewer_threads_than_wanted(void **state) {
  (void)state;
  for (creations_left = 0; creations_left < 3;) {
    const int given = creations_left;
    NitiThreads *threads = open_pool(THREADS);
    assert_int_equal(niti_threads_count(threads), 1 + given);
    Work work = {.items = 100};
    niti_threads_run(threads, count_item, &work, work.items);
    check_once(&work, 1);
    niti_threads_close(threads);
    creations_left = given + 1;
  }
  creations_left = -1;
}

static void test_bad_counts(void **state) {
  NitiThreads *threads;
  (void)state;
  assert_int_equal(niti_threads_open(&threads, -1), NITI_ERROR_ARGUMENT);
  assert_null(threads);
  assert_int_equal(niti_threads_open(&threads, 1025), NITI_ERROR_ARGUMENT);
  niti_threads_close(NULL);
}

static void test_default_follows_affinity(void **state) {
  cpu_set_t before, one;
  (void)state;
  assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET((size_t)cpu, &before)) CPU_SET((size_t)cpu, &one);
  assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
  NitiThreads *threads = open_pool(0);
  const int cores = niti_usable_cores(), count = niti_threads_count(threads);
  niti_threads_close(threads);
  assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
  assert_int_equal(cores, 1);
  assert_int_equal(count, 1);
  assert_true(niti_usable_cores() <= CPU_COUNT(&before));
}

/* ---- quotas of groups: a made-up machine below a folder ---- */

static char root[64];

/* Writes ROOT/path, making its folders. */
static void put(const char *path, const char *text) {
  char whole[512];
  (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
  for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    (void)mkdir(whole, 0777);
    *slash = '/';
  }
  FILE *file = fopen(whole, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static int make_machine(void **state) {
  (void)state;
  (void)snprintf(root, sizeof root, "/tmp/niti-threads-XXXXXX");
  return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at) {
  (void)info, (void)type, (void)at;
  return remove(path);
}

static int remove_machine(void **state) {
  (void)state;
  return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define MOUNT_V2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_V1                                                                                           \
  "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n32 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" \
  "33 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"

static void test_no_quota(void **state) {
  (void)state;
  assert_int_equal(niti_quota_cores(root), 0); /* no /proc at all */
  put("proc/self/cgroup", "0::/user.slice\nnonsense\n");
  put("proc/self/mountinfo", "broken\n");
  assert_int_equal(niti_quota_cores(root), 0);
  put("proc/self/mountinfo", MOUNT_V2);
  assert_int_equal(niti_quota_cores(root), 0);
  put("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
  assert_int_equal(niti_quota_cores(root), 0);
  put("sys/fs/cgroup/user.slice/cpu.max", "");
  assert_int_equal(niti_quota_cores(root), 0);
}

/* Half a core, exactly two, and two and a bit, rounded up. */
static void test_quota_v2(void **state) {
  (void)state;
  put("proc/self/cgroup", "0::/a.slice/b.scope\n");
  put("proc/self/mountinfo", MOUNT_V2);
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "50000 100000\n");
  assert_int_equal(niti_quota_cores(root), 1);
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "200000 100000\n");
  assert_int_equal(niti_quota_cores(root), 2);
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "200001 100000\n");
  assert_int_equal(niti_quota_cores(root), 3);
  put("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n"); /* the group above allows less */
  assert_int_equal(niti_quota_cores(root), 2);
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "max 100000\n");
  assert_int_equal(niti_quota_cores(root), 2);
}

/* In a container, whose own group is the root of what it sees: with a namespace of its own, and without. */
static void test_quota_in_container(void **state) {
  (void)state;
  put("proc/self/cgroup", "0::/\n");
  put("proc/self/mountinfo", MOUNT_V2);
  put("sys/fs/cgroup/cpu.max", "300000 100000\n");
  assert_int_equal(niti_quota_cores(root), 3);
  put("proc/self/cgroup", "0::/docker/abc/inner\n");
  put("proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  put("sys/fs/cgroup/inner/cpu.max", "100000 100000\n");
  assert_int_equal(niti_quota_cores(root), 1);
  put("proc/self/cgroup", "0::/docker/abcd/inner\n");
  assert_int_equal(niti_quota_cores(root), 3);
  put("proc/self/cgroup", "0::/elsewhere\n");
  assert_int_equal(niti_quota_cores(root), 3);
}

static void test_quota_v1(void **state) {
  (void)state;
  put("proc/self/cgroup", "5:cpuset:/set\n4:cpu,cpuacct:/job/7\n0::/\n");
  put("proc/self/mountinfo", MOUNT_V1);
  put("sys/fs/cgroup/cpu,cpuacct/job/7/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/cpu,cpuacct/job/7/cpu.cfs_quota_us", "-1\n");
  assert_int_equal(niti_quota_cores(root), 0);
  put("sys/fs/cgroup/cpu,cpuacct/job/7/cpu.cfs_quota_us", "250000\n");
  assert_int_equal(niti_quota_cores(root), 3);
  put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "10000\n");
  put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "5000\n");
  assert_int_equal(niti_quota_cores(root), 1);
}

#define MACHINE(test) cmocka_unit_test_setup_teardown(test, make_machine, remove_machine)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_item_once),
      cmocka_unit_test(test_sleepers_wake),
      cmocka_unit_test(test_sleepers_help),
      cmocka_unit_test(test_held_items_are_waited_for),
      cmocka_unit_test(test_absent_workers_are_not_waited_for),
      cmocka_unit_test(test_fewer_threads_than_wanted),
      cmocka_unit_test(test_bad_counts),
      cmocka_unit_test(test_default_follows_affinity),
      MACHINE(test_no_quota),
      MACHINE(test_quota_v2),
      MACHINE(test_quota_in_container),
      MACHINE(test_quota_v1),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
