/* The process among others: its descriptors, the signals that it gets, and the terminal that it writes to. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "platform/clock.h"
#include "platform/environment.h"
#include "platform/text.h"

void descriptors_open(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
      return; /* open takes the lowest, which is fd */
  }
}

enum { STACK_LEAST = 512 /* KiB; MPI needs more than 128, niti 96 (docs/reliability.md) */ };

int stack_check(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= (rlim_t)STACK_LEAST << 10) return -1;
  return fail_with(EXIT_FAILED, "the limit on the stack is %llu KiB (expected at least %d: ulimit -s 8192 is usual)",
                   (unsigned long long)(limit.rlim_cur >> 10), STACK_LEAST);
}

/* ---- a mapped file that has become shorter ---- */

static void write_plainly(const char *text, size_t size) {
  const int error = errno;
  if (write(STDERR_FILENO, text, size) < 0) errno = error;
}

/* The number in hexadecimal digits with which a text begins. */
static uintptr_t address_in(const char *text) {
  uintptr_t value = 0;
  for (; (*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'f'); ++text)
    value = value << 4 | (uintptr_t)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
  return value;
}

/* line: FIRST-END and more. */
static bool has_address(const char *line, uintptr_t at) {
  const char *dash = strchr(line, '-');
  return dash && at >= address_in(line) && at < address_in(dash + 1);
}

/* The path of the file that is mapped at an address, by the kernel's list, in line[size]. NULL: there is none. */
static const char *find_mapped(char *line, size_t size, uintptr_t at) {
  char chunk[512];
  size_t length = 0;
  ssize_t count;
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  while (fd >= 0 && (count = read(fd, chunk, sizeof chunk)) > 0) {
    for (ssize_t i = 0; i < count; ++i) {
      const bool end = chunk[i] == '\n';
      line[length] = 0;
      if (end && has_address(line, at)) return strchr(line, '/'); /* nothing before the path has one */
      if (!end && length + 1 < size) line[length++] = chunk[i];
      if (end) length = 0;
    }
  }
  return NULL;
}

/* Calls only what a handler may: nothing that allocates, locks or prints through stdio. */
static void tell_change(uintptr_t at) {
  static const char text[] =
      ": became shorter or unreadable while it was used (expected a file of the data set not to change; once it is restored, "
      "`niti train --resume` continues a run)\n";
  char line[PATH_MAX + 100], message[sizeof line + sizeof text + 8] = "niti: ";
  const char *path = find_mapped(line, sizeof line, at);
  (void)niti_text_escape(message + strlen(message), sizeof line, path ? path : "a file", false);
  memcpy(message + strlen(message), text, sizeof text);
  write_plainly(message, strlen(message));
}

static void on_bus(int number, siginfo_t *info, void *context) {
  static atomic_flag told = ATOMIC_FLAG_INIT;
  (void)context;
  if (info->si_code == BUS_ADRERR) {
    while (atomic_flag_test_and_set(&told)) (void)pause(); /* another thread tells, and ends the process */
    tell_change((uintptr_t)info->si_addr);
    _exit(EXIT_FAILED);
  }
  (void)signal(number, SIG_DFL); /* a fault of the program's own: it happens again */
}

void mapping_watch(void) {
  struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
  sigemptyset(&action.sa_mask);
  (void)sigaction(SIGBUS, &action, NULL);
}

/* ---- signals ---- */

enum { PAIR = 300000000 }; /* nanoseconds between the two signals of a pair, at most */
static volatile sig_atomic_t caught, save_asked;
static int64_t caught_at;

static bool is_interactive(void) { return isatty(STDERR_FILENO) == 1; }

/* A second signal ends the process at once, but not the second of a pair: a terminal that closes sends SIGHUP twice, by the
 * kernel and by the shell, and `timeout` signals first its child and then its group. */
static bool is_second(int number) { return number != SIGHUP && niti_clock_now() - caught_at > PAIR; }

static void on_stop(int number) {
  const int error = errno; /* what was interrupted may be about to read it; isatty sets it */
  if (caught && is_second(number)) _exit(128 + number);
  if (!caught) {
    caught_at = niti_clock_now();
    caught = number;
    if (number == SIGINT && is_interactive()) alarm(1);
  }
  errno = error;
}

/* Confirms the signal at once, since a step may be long. */
static void on_alarm(int number) {
  static const char text[] = "\nniti: finishing the step, then saving; once more: stop at once\n";
  (void)number;
  write_plainly(text, sizeof text - 1);
}

static void on_save(int number) {
  (void)number;
  save_asked = 1;
}

/* What the parent had ignored stays ignored: nohup, or a shell's background job. */
static void handle(int number, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
  sigemptyset(&action.sa_mask);
  if (sigaction(number, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(number, &action, NULL);
}

void signals_watch(void) { handle(SIGUSR1, on_save); }

void signals_catch(void) {
  handle(SIGINT, on_stop);
  handle(SIGTERM, on_stop);
  handle(SIGHUP, on_stop);
  handle(SIGALRM, on_alarm);
  handle(SIGPIPE, SIG_IGN); /* writing fails instead, and says so */
}

void file_limit_watch(void) { handle(SIGXFSZ, SIG_IGN); }

int signals_caught(void) { return caught; }

bool signals_save_asked(void *context) {
  const bool asked = save_asked != 0;
  (void)context;
  save_asked = 0;
  return asked;
}

void output_flush(void) {
  if (fflush(stdout) == 0 || errno != EPIPE || caught) return;
  fputs("niti: nobody reads the standard output any more\n", stderr);
  caught = SIGPIPE;
}

/* ---- the terminal ---- */

bool terminal_can_redraw(void) {
  const char *kind = niti_environment_get("TERM");
  return is_interactive() && kind && strcmp(kind, "dumb") != 0;
}

int terminal_columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}
