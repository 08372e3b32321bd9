/* The lock on a folder, with flock and, as on some file systems, without it. */
#include <sys/file.h>
#include <sys/wait.h>

#include "io_test.h"
#include "platform/environment.h"
#include "platform/lock.h"
#include "train/run_folder.h"

/* ---- a flock that can be made to be missing ---- */

static int flock_error;         /* 0: it works */
static void (*meanwhile)(void); /* what another process does just before */

int flock(int fd, int operation) {
  (void)fd, (void)operation;
  if (meanwhile) meanwhile();
  errno = flock_error;
  return flock_error ? -1 : 0;
}

static const char *owner_of(const NitiLock *lock) {
  const char *path = niti_lock_owner_file(lock);
  assert_non_null(path);
  assert_string_equal(path, at(".lock.owner"));
  return path;
}

/* An owner's entry; only one at a time. */
static void put_owner(long process, unsigned long long start, const char *host) {
  char name[300];
  (void)snprintf(name, sizeof name, ".lock.owner/%ld-%llu-%s", process, start, host);
  assert_int_equal(mkdir(at(".lock.owner"), 0777), 0);
  put_file(at(name), "", 0);
}

/* The name of the only entry. */
static const char *get_owner(void) {
  static char name[256];
  DIR *dir = opendir(at(".lock.owner"));
  assert_non_null(dir);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    (void)snprintf(name, sizeof name, "%s", entry->d_name);
    ++count;
  }
  (void)closedir(dir);
  assert_int_equal(count, 1);
  return name;
}

static void remove_owner(void) {
  char name[300];
  (void)snprintf(name, sizeof name, ".lock.owner/%s", get_owner());
  assert_int_equal(unlink(at(name)), 0);
  assert_int_equal(rmdir(at(".lock.owner")), 0);
}

/* By the kernel's own account: the 22nd word, where no word before has a space. */
static unsigned long long start_of(long process) {
  char path[64], word[256];
  (void)snprintf(path, sizeof path, "/proc/%ld/stat", process);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  for (int i = 0; i < 22; ++i) assert_int_equal(fscanf(file, "%255s", word), 1);
  assert_int_equal(fclose(file), 0);
  return strtoull(word, NULL, 10);
}

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

static void check_taken(void) {
  NitiLock *lock;
  check_ok(niti_lock_open(&lock, folder));
  assert_int_equal(strtol(get_owner(), NULL, 10), getpid());
  niti_lock_close(lock);
  assert_int_equal(count_files(), 1); /* .lock */
}

static void check_busy(const char *part) {
  NitiLock *lock;
  char before[300];
  (void)snprintf(before, sizeof before, "%s", get_owner());
  check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, at(".lock.owner"), part);
  assert_string_equal(get_owner(), before);
  assert_int_equal(count_files(), 2);
  remove_owner();
}

static void test_left_behind(void **state) {
  (void)state;
  char host[256], other[300];
  flock_error = ENOLCK;
  niti_environment_host(host, sizeof host);
  put_owner(dead_process(), 1, host);
  check_taken();
  put_owner(dead_process(), 0, host);
  check_taken();
  (void)snprintf(other, sizeof other, "not-%s", host); /* another host's may be alive */
  put_owner(dead_process(), 1, other);
  check_busy(other);
  assert_int_equal(mkdir(at(".lock.owner"), 0777), 0); /* of a process that was killed as it closed the lock */
  check_taken();
  assert_int_equal(mkdir(at(".lock.owner"), 0777), 0);
  put_file(at(".lock.owner/?"), "", 0);
  check_busy("remove");
}

/* The number is another process's by now, or this one's. */
static void test_numbers_come_again(void **state) {
  (void)state;
  char host[256];
  const long self = (long)getpid(), parent = (long)getppid();
  flock_error = ENOLCK;
  niti_environment_host(host, sizeof host);
  put_owner(self, start_of(self) - 1, host);
  check_taken();
  put_owner(self, start_of(self), host);
  check_busy("another process");
  put_owner(parent, start_of(parent) - 1, host);
  check_taken();
  put_owner(parent, start_of(parent), host);
  check_busy("another process");
  put_owner(parent, 0, host); /* of a host without /proc */
  check_busy("another process");
}

/* ---- a run's folder ---- */

static void train_there(void) {
  put_file(at("recipe.yaml"), "name: a\n", 8);
  put_file(at("last.safetensors"), "theirs", 6);
}

static void replace_lock(void) {
  assert_int_equal(unlink(at(".lock")), 0);
  put_file(at(".lock"), "", 0);
}

/* Between the look into the folder and the lock. */
/* They may lead to another's folder; where they do, nothing is made there. */
static void test_links(void **state) {
  (void)state;
  static const char *const names[] = {".lock", ".lock.owner"};
  for (int i = 0; i < 2; ++i) {
    NitiLock *lock;
    flock_error = i == 0 ? 0 : ENOLCK;
    assert_int_equal(symlink(i == 0 ? "elsewhere" : ".", at(names[i])), 0);
    check_fails(niti_lock_open(&lock, folder), NITI_ERROR_FILE, at(names[i]), "a symbolic link");
    assert_int_not_equal(access(at("elsewhere"), F_OK), 0);
    assert_int_equal(unlink(at(names[i])), 0);
    assert_int_equal(count_files(), i); /* the second: .lock */
  }
}

static void test_another_run_comes_between(void **state) {
  (void)state;
  static const int errors[] = {0, ENOLCK};
  NitiRunFolder *run;
  for (int i = 0; i < 2; ++i) {
    flock_error = errors[i];
    meanwhile = train_there;
    const NitiStatus status = niti_run_folder_create(&run, folder);
    meanwhile = NULL;
    check_fails(status, NITI_ERROR_FILE, folder, "--resume");
    assert_null(run);
    assert_int_equal(count_files(), 3); /* theirs, and .lock */
    assert_int_equal(unlink(at("last.safetensors")) | unlink(at("recipe.yaml")) | unlink(at(".lock")), 0);
  }
}

static void test_a_lock_that_is_removed(void **state) {
  (void)state;
  NitiLock *lock;
  flock_error = 0;
  meanwhile = replace_lock;
  const NitiStatus status = niti_lock_open(&lock, folder);
  meanwhile = NULL;
  check_fails(status, NITI_ERROR_FILE, folder, "another process");
  assert_null(lock);
}

/* A lock that is held keeps no one out once its file, its owner's entry or its folder has gone. */
static void test_while_it_is_held(void **state) {
  (void)state;
  static const int errors[] = {0, ENOLCK};
  char away[300];
  (void)snprintf(away, sizeof away, "%s-away", folder);
  for (int i = 0; i < 2; ++i) {
    NitiLock *lock;
    flock_error = errors[i];
    check_ok(niti_lock_open(&lock, folder));
    check_ok(niti_lock_check(lock));
    assert_int_equal(rename(at(".lock"), at("lock")), 0);
    check_fails(niti_lock_check(lock), NITI_ERROR_FILE, at(".lock"), "removed or replaced");
    put_file(at(".lock"), "", 0);
    check_fails(niti_lock_check(lock), NITI_ERROR_FILE, at(".lock"), "removed or replaced");
    assert_int_equal(rename(at("lock"), at(".lock")), 0);
    check_ok(niti_lock_check(lock));
    if (i == 1) {
      assert_int_equal(rename(at(".lock.owner"), at("owner")), 0);
      check_fails(niti_lock_check(lock), NITI_ERROR_FILE, at(".lock.owner"), "removed or replaced");
      assert_int_equal(rename(at("owner"), at(".lock.owner")), 0);
    }
    assert_int_equal(rename(folder, away), 0);
    check_fails(niti_lock_check(lock), NITI_ERROR_FILE, folder, "was moved");
    assert_int_equal(mkdir(folder, 0777), 0);
    put_file(at(".lock"), "", 0);
    check_fails(niti_lock_check(lock), NITI_ERROR_FILE, folder, "another one is in its place");
    assert_int_equal(unlink(at(".lock")) | rmdir(folder) | rename(away, folder), 0);
    check_ok(niti_lock_check(lock));
    niti_lock_close(lock);
    assert_int_equal(unlink(at(".lock")), 0);
  }
}

static void test_a_folder_that_is_removed(void **state) {
  (void)state;
  NitiLock *lock;
  flock_error = 0;
  check_ok(niti_lock_open(&lock, folder));
  assert_int_equal(unlink(at(".lock")) | rmdir(folder), 0);
  check_fails(niti_lock_check(lock), NITI_ERROR_FILE, folder, "was removed");
  assert_int_equal(mkdir(folder, 0777), 0);
  check_fails(niti_lock_check(lock), NITI_ERROR_FILE, folder, "another one is in its place");
  niti_lock_close(lock);
}

/* Alone it is of a process that is about to write, or was killed before it did. */
static void test_a_folder_with_a_lock(void **state) {
  (void)state;
  NitiRunFolder *run;
  put_file(at(".lock"), "", 0);
  flock_error = EWOULDBLOCK;
  check_fails(niti_run_folder_create(&run, folder), NITI_ERROR_FILE, folder, "another process");
  flock_error = 0;
  check_ok(niti_run_folder_check(folder));
  check_ok(niti_run_folder_create(&run, folder));
  niti_run_folder_close(run);
  put_file(at("other"), "", 0);
  check_fails(niti_run_folder_create(&run, folder), NITI_ERROR_FILE, folder, "'other'");
  check_fails(niti_run_folder_check(folder), NITI_ERROR_FILE, folder, "'other'");
  assert_int_equal(count_files(), 2);
}

/* What a process that has the lock has written so far is in nobody's way for good, and is left alone. */
static void test_a_folder_in_which_another_has_begun(void **state) {
  (void)state;
  static const char *const files[] = {"recipe.yaml.tmp", "last.safetensors"};
  static const int errors[] = {EWOULDBLOCK, ENOLCK};
  for (size_t i = 0; i < 4; ++i) {
    const bool by_name = i % 2 == 1;
    NitiLock *theirs = NULL;
    NitiRunFolder *run;
    flock_error = errors[i % 2];
    put_file(at(".lock"), "", 0);
    if (by_name) check_ok(niti_lock_open(&theirs, folder));
    put_file(at(files[i / 2]), "", 0);
    check_fails(niti_run_folder_create(&run, folder), NITI_ERROR_FILE, folder, "another process is training in this folder");
    check_fails(niti_run_folder_check(folder), NITI_ERROR_FILE, folder, "another process is training in this folder");
    assert_null(run);
    assert_int_equal(count_files(), by_name ? 3 : 2);
    niti_lock_close(theirs);
    if (!by_name) flock_error = 0; /* it has ended */
    check_fails(niti_run_folder_create(&run, folder), NITI_ERROR_FILE, folder, files[i / 2]);
    check_fails(niti_run_folder_check(folder), NITI_ERROR_FILE, folder, files[i / 2]);
    assert_int_equal(unlink(at(files[i / 2])) | unlink(at(".lock")), 0);
  }
  char host[256];
  niti_environment_host(host, sizeof host);
  put_owner(dead_process(), 0, host); /* nobody has begun */
  put_file(at("recipe.yaml"), "", 0);
  put_file(at(".lock"), "", 0);
  flock_error = ENOLCK;
  check_fails(niti_run_folder_check(folder), NITI_ERROR_FILE, folder, "'recipe.yaml'");
  remove_owner();
}

static void test_a_folder_in_the_place_of_the_lock(void **state) {
  (void)state;
  NitiRunFolder *run;
  flock_error = 0;
  assert_int_equal(mkdir(at(".lock"), 0777), 0);
  check_fails(niti_run_folder_create(&run, folder), NITI_ERROR_FILE, folder, "'.lock'");
  check_fails(niti_run_folder_check(folder), NITI_ERROR_FILE, folder, "'.lock'");
  assert_int_equal(rmdir(at(".lock")), 0);
}

static void test_clearing_leaves_what_others_wrote(void **state) {
  (void)state;
  NitiRunFolder *run;
  flock_error = 0;
  check_ok(niti_run_folder_create(&run, folder));
  train_there(); /* as this run does */
  put_file(at("last.safetensors.tmp"), "", 0);
  put_file(at("events.out.tfevents.1.host.niti"), "", 0);
  put_file(at("notes.txt"), "", 0);
  put_file(at("last.safetensors.bak"), "", 0);
  niti_run_folder_clear(run);
  niti_run_folder_close(run);
  assert_int_equal(count_files(), 2);
  assert_int_equal(access(at("notes.txt"), F_OK) | access(at("last.safetensors.bak"), F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_with_flock),
                                     TEST(test_without_flock),
                                     TEST(test_left_behind),
                                     TEST(test_numbers_come_again),
                                     TEST(test_links),
                                     TEST(test_another_run_comes_between),
                                     TEST(test_a_lock_that_is_removed),
                                     TEST(test_while_it_is_held),
                                     TEST(test_a_folder_that_is_removed),
                                     TEST(test_a_folder_with_a_lock),
                                     TEST(test_a_folder_in_which_another_has_begun),
                                     TEST(test_a_folder_in_the_place_of_the_lock),
                                     TEST(test_clearing_leaves_what_others_wrote)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
