/* The choice of instruction sets: names, and what happens where the kernel refuses the tile registers that AMX needs. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/cpu.h"

static void test_names(void **unused) {
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    NitiIsa parsed = NITI_ISAS;
    if (niti_isa_supported(isa)) {
      assert_int_equal(niti_isa_parse(&parsed, niti_isa_name(isa)), NITI_OK);
      assert_int_equal(parsed, isa);
    } else {
      assert_int_equal(niti_isa_parse(&parsed, niti_isa_name(isa)), NITI_ERROR_UNSUPPORTED);
      assert_non_null(strstr(niti_error(), niti_isa_name(isa)));
    }
  }
  NitiIsa best;
  assert_int_equal(niti_isa_parse(&best, "auto"), NITI_OK);
  assert_int_equal(best, niti_cpu_best_isa());
  assert_true(niti_isa_supported(best));
}

#if defined(__x86_64__) && defined(__linux__)
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SUPPORTED = 10, ERROR_KIND, ERROR_TEXT, BEST, NO_FILTER };

/* In a process of its own: a filter answers EPERM to every request for the use of a processor's state. */
static int refused(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1023, 0, 1), /* ARCH_REQ_XCOMP_PERM */
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog program = {sizeof code / sizeof code[0], code};
  NitiIsa isa;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return NO_FILTER;
  if (niti_isa_supported(NITI_ISA_AMX)) return SUPPORTED;
  if (niti_isa_parse(&isa, "amx") != NITI_ERROR_UNSUPPORTED) return ERROR_KIND;
  if (!strstr(niti_error(), "refused the tile state") || !strstr(niti_error(), strerror(EPERM))) return ERROR_TEXT;
  if (niti_isa_parse(&isa, "auto") != NITI_OK || isa != NITI_ISA_AVX512VNNI) return BEST;
  return 0;
}

static void test_refusal(void **unused) {
  int status;
  (void)unused;
  if (!niti_isa_supported(NITI_ISA_AMX)) {
    print_message("this CPU has no AMX, or the kernel does not give it\n");
    skip();
  }
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(refused());
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == NO_FILTER) {
    print_message("no seccomp filter can be installed here\n");
    skip();
  }
  assert_int_equal(WEXITSTATUS(status), 0);
}
#else
static void test_refusal(void **unused) {
  (void)unused;
  skip();
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_refusal)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
