/* The one place that chooses kernels by instruction set. */
#include "backend/cpu/grouped.h"
#include "backend/cpu/loops.h"
#include "backend/cpu/peak.h"
#include "backend/cpu/winograd.h"

NitiRequantiseKernel niti_requantise_kernel(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AVX512VNNI) return niti_requantise_avx512;
  if (isa >= NITI_ISA_AVX2) return niti_requantise_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_DOTPROD) return niti_requantise_neon;
#endif
  (void)isa;
  return niti_requantise_ref;
}

const NitiConvKernels *niti_conv_kernels(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AMX) return &niti_conv_kernels_amx;
  if (isa >= NITI_ISA_AVX512VNNI) return &niti_conv_kernels_avx512vnni;
  if (isa >= NITI_ISA_AVX2) return &niti_conv_kernels_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_I8MM) return &niti_conv_kernels_neon_i8mm;
  if (isa >= NITI_ISA_NEON_DOTPROD) return &niti_conv_kernels_neon_dotprod;
#endif
  (void)isa;
  return NULL;
}

const NitiGroupedKernels *niti_grouped_kernels(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AVX512VNNI) return &niti_grouped_kernels_avx512;
  if (isa >= NITI_ISA_AVX2) return &niti_grouped_kernels_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_DOTPROD) return &niti_grouped_kernels_neon;
#endif
  (void)isa;
  return NULL;
}

const NitiLoops *niti_loops(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AVX512VNNI) return &niti_loops_avx512;
  if (isa >= NITI_ISA_AVX2) return &niti_loops_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_DOTPROD) return &niti_loops_neon;
#endif
  (void)isa;
  return &niti_loops_ref;
}

NitiPeakKernel niti_peak_kernel(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AMX) return niti_peak_amx;
  if (isa >= NITI_ISA_AVX512VNNI) return niti_peak_avx512vnni;
  if (isa >= NITI_ISA_AVX2) return niti_peak_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_I8MM) return niti_peak_i8mm;
  if (isa >= NITI_ISA_NEON_DOTPROD) return niti_peak_dotprod;
#endif
  (void)isa;
  return NULL;
}

const NitiWinogradKernels *niti_winograd_kernels(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AMX) return NULL; /* multiplies bytes eight times as fast as int16 */
  if (isa >= NITI_ISA_AVX512VNNI)
    return niti_cpu_halves_512() ? &niti_winograd_kernels_avx512vnni_halves : &niti_winograd_kernels_avx512vnni;
  if (isa >= NITI_ISA_AVX2) return &niti_winograd_kernels_avx2;
#endif
  (void)isa;
  return NULL;
}
