/* The one place that chooses kernels by instruction set. */
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
  if (isa >= NITI_ISA_AVX512VNNI) return &niti_conv_kernels_avx512vnni;
  if (isa >= NITI_ISA_AVX2) return &niti_conv_kernels_avx2;
#elif defined(__aarch64__)
  if (isa >= NITI_ISA_NEON_I8MM) return &niti_conv_kernels_neon_i8mm;
  if (isa >= NITI_ISA_NEON_DOTPROD) return &niti_conv_kernels_neon_dotprod;
#endif
  (void)isa;
  return NULL;
}

const NitiWinogradKernels *niti_winograd_kernels(NitiIsa isa) {
#if defined(__x86_64__)
  if (isa >= NITI_ISA_AVX512VNNI) return &niti_winograd_kernels_avx512vnni;
  if (isa >= NITI_ISA_AVX2) return &niti_winograd_kernels_avx2;
#endif
  (void)isa;
  return NULL;
}
