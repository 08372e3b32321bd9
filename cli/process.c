/* The process among others: its descriptors, the signals that it gets, and the terminal that it writes to. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* ---- a mapped file that has become shorter ---- */

static void write_plainly(const char *text, size_t size) {
  const int error = errno;
  if (write(STDERR_FILENO, text, size) < 0) errno = error;
}

static void on_bus(int number, siginfo_t *info, void *context) {
  static const char text[] =
      "niti: a file of the data set became shorter or unreadable while it was used (expected it not to change; once it is "
      "restored, "
      "`niti train --resume` continues a run)\n";
  (void)context;
  if (info->si_code == BUS_ADRERR) {
    write_plainly(text, sizeof text - 1);
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

void signals_catch(void) {
  handle(SIGINT, on_stop);
  handle(SIGTERM, on_stop);
  handle(SIGHUP, on_stop);
  handle(SIGUSR1, on_save);
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
