/* Detects the instruction sets that the processor and the operating system support, and parses their names. */
#define _DEFAULT_SOURCE /* syscall */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "platform/file.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

enum { CPUINFO_BYTES_MAX = 1 << 24 };

static const char *const names[NITI_ISAS] = {"ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"};

#if defined(__x86_64__)

/* EDX of CPUID leaf 7; gcc 12's __builtin_cpu_supports does not know these features. */
static bool leaf_7_edx(int bit) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> bit & 1);
}

/* X(feature): those that kernels use. The builtin includes the operating system's support; for AMX that is a separate query. */
#define FEATURES(X) X(avx) X(avx2) X(fma) X(avx512f) X(avx512bw) X(avx512dq) X(avx512vl) X(avx512vnni) X(amx_tile) X(amx_int8)
#define HAS_avx __builtin_cpu_supports("avx")
#define HAS_avx2 __builtin_cpu_supports("avx2")
#define HAS_fma __builtin_cpu_supports("fma")
#define HAS_avx512f __builtin_cpu_supports("avx512f")
#define HAS_avx512bw __builtin_cpu_supports("avx512bw")
#define HAS_avx512dq __builtin_cpu_supports("avx512dq")
#define HAS_avx512vl __builtin_cpu_supports("avx512vl")
#define HAS_avx512vnni __builtin_cpu_supports("avx512vnni")
#define HAS_amx_tile leaf_7_edx(24)
#define HAS_amx_int8 leaf_7_edx(25)
#define HAS(feature) (HAS_##feature != 0)
#define PROBE() __builtin_cpu_init()

/* Requests the tile registers from the operating system, for the whole process and its future threads; repeating the request is
 * harmless. Returns 0, or the errno of a refusal. */
static int ask_for_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

static bool cpu_has_amx(void) { return HAS(amx_tile) && HAS(amx_int8) && niti_isa_supported(NITI_ISA_AVX512VNNI); }

bool niti_isa_supported(NitiIsa isa) {
  PROBE();
  if (isa == NITI_ISA_AMX) return cpu_has_amx() && ask_for_tiles() == 0;
  if (isa == NITI_ISA_AVX512VNNI) return HAS(avx512f) && HAS(avx512bw) && HAS(avx512dq) && HAS(avx512vl) && HAS(avx512vnni);
  if (isa == NITI_ISA_AVX2) return HAS(avx2);
  return isa == NITI_ISA_REF;
}

/* AMD's family 25: of its processors Zen 4 alone has AVX-512. */
bool niti_cpu_halves_512(void) {
  unsigned version, a, b, c, d;
  if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx || !__get_cpuid(1, &version, &b, &c, &d)) return false;
  return (version >> 8 & 15) + (version >> 20 & 255) == 25 && niti_isa_supported(NITI_ISA_AVX512VNNI);
}

#elif defined(__aarch64__) && defined(__linux__)

/* X(feature): those that kernels use, by the operating system's names. */
#define FEATURES(X) X(asimd) X(asimddp) X(sve) X(sve2) X(i8mm)
#define HAS_asimd (getauxval(AT_HWCAP) & HWCAP_ASIMD)
#define HAS_asimddp (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
#define HAS_sve (getauxval(AT_HWCAP) & HWCAP_SVE)
#define HAS_sve2 (getauxval(AT_HWCAP2) & HWCAP2_SVE2)
#define HAS_i8mm (getauxval(AT_HWCAP2) & HWCAP2_I8MM)
#define HAS(feature) (HAS_##feature != 0)
#define PROBE() (void)0

bool niti_isa_supported(NitiIsa isa) {
  if (isa == NITI_ISA_NEON_I8MM) return HAS(asimddp) && HAS(i8mm);
  if (isa == NITI_ISA_NEON_DOTPROD) return HAS(asimddp);
  return isa == NITI_ISA_REF;
}

#else

#define FEATURES(X)
#define HAS(feature) false
#define PROBE() (void)0

bool niti_isa_supported(NitiIsa isa) { return isa == NITI_ISA_REF; }

#endif

#if !defined(__x86_64__)
bool niti_cpu_halves_512(void) { return false; }
#endif

static void append(char *text, size_t size, const char *separator, const char *word) {
  const size_t used = strlen(text);
  if (used < size) (void)snprintf(text + used, size - used, "%s%s", used ? separator : "", word);
}

void niti_cpu_features(char *text, size_t size) {
  if (size == 0) return;
  text[0] = 0;
  PROBE();
#define APPEND(feature) \
  if (HAS(feature)) append(text, size, " ", #feature);
  FEATURES(APPEND)
#undef APPEND
}

void niti_cpu_model(char *text, size_t size) {
  static const char key[] = "\nmodel name";
  char *all;
  (void)snprintf(text, size, "CPU");
  if (niti_file_read_any(&all, NULL, "/proc/cpuinfo", CPUINFO_BYTES_MAX) != NITI_OK) return;
  const char *line = strstr(all, key), *colon = line ? strstr(line, ": ") : NULL;
  if (colon) (void)snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
  free(all);
}

NitiIsa niti_cpu_best_isa(void) {
  for (int isa = NITI_ISAS - 1; isa > NITI_ISA_REF; --isa) {
    if (niti_isa_supported((NitiIsa)isa)) return (NitiIsa)isa;
  }
  return NITI_ISA_REF;
}

const char *niti_isa_name(NitiIsa isa) { return names[isa]; }

/* Fails if the CPU has the set but the operating system does not permit it. */
static NitiStatus check_system(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa == NITI_ISA_AMX && cpu_has_amx()) {
    return niti_fail(
        NITI_ERROR_UNSUPPORTED,
        "instruction set amx: the kernel refused the tile state (arch_prctl(ARCH_REQ_XCOMP_PERM): %s), expected Linux "
        "5.16 or later without a filter on it; the best that can be used here is %s",
        strerror(ask_for_tiles()), niti_isa_name(niti_cpu_best_isa()));
  }
#endif
  (void)isa;
  return NITI_OK;
}

NitiStatus niti_isa_parse(NitiIsa *out, const char *name) {
  if (!name || strcmp(name, "auto") == 0) {
    *out = niti_cpu_best_isa();
    return NITI_OK;
  }
  for (int isa = 0; isa < NITI_ISAS; ++isa) {
    if (strcmp(name, names[isa]) != 0) continue;
    if (!niti_isa_supported((NitiIsa)isa)) {
      NITI_TRY(check_system((NitiIsa)isa));
      char features[256];
      niti_cpu_features(features, sizeof features);
      return niti_fail(NITI_ERROR_UNSUPPORTED, "instruction set %s: this CPU lacks it; it has: %s; the best for it is %s", name,
                       features[0] ? features : "none that niti knows", niti_isa_name(niti_cpu_best_isa()));
    }
    *out = (NitiIsa)isa;
    return NITI_OK;
  }
  char known[128] = "";
  for (int isa = 0; isa < NITI_ISAS; ++isa) append(known, sizeof known, ", ", names[isa]);
  return niti_fail(NITI_ERROR_ARGUMENT, "instruction set \"%.64s\": unknown, expected %s or auto", name, known);
}
