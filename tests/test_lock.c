/* The lock on a folder, with flock and, as on some file systems, without it. */
#include <sys/file.h>
#include <sys/wait.h>

#include "io_test.h"
#include "platform/environment.h"
#include "platform/lock.h"

/* ---- a flock that can be made to be missing ---- */

static int flock_error; /* 0: it works */

int flock(int fd, int operation) {
  (void)fd, (void)operation;
  errno = flock_error;
  return flock_error ? -1 : 0;
}

static const char *owner_of(const NitiLock *lock) {
  const char *path = niti_lock_owner_file(lock);
  assert_non_null(path);
  assert_string_equal(path, at(".lock.owner"));
  return path;
}

static void put_owner(const char *text) { put_file(at(".lock.owner"), text, strlen(text)); }

static void test_with_flock(void **state) {
  (void)state;
  NitiLock *lock;
  flock_error = 0;
  check_ok(niti_lock_open(&lock, folder));
  assert_null(niti_lock_owner_file(lock));
  niti_lock_close(lock);
  assert_int_equal(count_files(), 1); /* .lock stays, for the next process */
  flock_error = EWOULDBLOCK;
  check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, folder, "another process");
  assert_null(lock);
  flock_error = EIO;
  check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, at(".lock"), "cannot lock");
}

static void test_without_flock(void **state) {
  (void)state;
  static const int errors[] = {ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL};
  NitiLock *lock, *second;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; ++i) {
    flock_error = errors[i];
    check_ok(niti_lock_open(&lock, folder));
    assert_int_equal(access(owner_of(lock), F_OK), 0);
    check_fails(niti_lock_open(&second, folder), NITI_ERROR_FILE, at(".lock.owner"), "another process");
    assert_null(second);
    assert_int_equal(access(owner_of(lock), F_OK), 0); /* the loser leaves it alone */
    niti_lock_close(lock);
    assert_int_not_equal(access(at(".lock.owner"), F_OK), 0);
  }
}

/* A process that is no more: a child that has been waited for. */
static long dead_process(void) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  return child;
}

static void test_left_behind(void **state) {
  (void)state;
  char host[256], text[512];
  NitiLock *lock;
  flock_error = ENOLCK;
  niti_environment_host(host, sizeof host);
  (void)snprintf(text, sizeof text, "%s %ld\n", host, dead_process());
  put_owner(text);
  check_ok(niti_lock_open(&lock, folder));
  niti_lock_close(lock);
  (void)snprintf(text, sizeof text, "not-%s %ld\n", host, dead_process()); /* another host's may be alive */
  put_owner(text);
  check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, at(".lock.owner"), "not-");
  put_owner("");
  check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, at(".lock.owner"), "remove");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_with_flock), TEST(test_without_flock), TEST(test_left_behind)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
