// Every crossover and block size of the CUDA kernels: one policy per kernel, every field with its
// reason. What is "estimated" follows from instruction counts and from the resources of an H100; it
// was not measured on a device.
#pragma once

#include <cstdint>

namespace jaxtv::cuda::tuning {

// ---- the shapes that a 1D prox has a kernel for ----

// Which kernel Direct picks (prox1d/prox1d.cu). Estimated.
struct Prox1dCrossovers {
  // Up to this length one thread per signal is never slow.
  static constexpr std::int64_t kLongestForThreads = 64;
  // From this many signals on, one thread per signal has the best throughput...
  static constexpr std::int64_t kManySignals = 4096;
  // ...if a tile has this many lanes. With fewer, most threads of a warp would idle.
  static constexpr int kFewestLanes = 8;
  // A warp has a signal of up to this length; longer ones take a block.
  static constexpr std::int64_t kLongestForWarp = 256;
  // The longest signal whose state fits into shared memory next to those of other blocks.
  static constexpr std::int64_t kLongestInSharedMemory = 1024;
  // From this length on, and for at most this many signals, the whole device works on one signal.
  // More signals fill the device with a block each.
  static constexpr std::int64_t kShortestForGrid = 32768;
  static constexpr std::int64_t kMostSignalsForGrid = 64;
};

// ---- one thread per signal ----

// prox_rows: whole signals as columns of a tile in shared memory.
struct ThreadPerSignal {
  // Tiles have at most 128 lanes; with more threads, shared memory would hold fewer blocks.
  static constexpr int kBlockThreads = 128;
  // At most 80 registers. Without it ptxas takes 64, and spills.
  static constexpr int kBlocksPerMultiprocessor = 6;
};

// prox_serial: signals in global memory, for TautString on what fits nowhere else.
struct SerialInGlobalMemory {
  // Few, so that a small batch spreads over many multiprocessors.
  static constexpr int kBlockThreads = 64;
  // More than such batches have. Without it ptxas takes 64 registers for double, and spills.
  static constexpr int kBlocksPerMultiprocessor = 8;
};

// Samples that the threads of a warp read before those that have come to the end of a segment end
// it together (jaxtv/taut_string.hpp, certificate.hpp). To end segments takes as many instructions
// as to read two samples, and in nearly every round some thread has to.
struct RowsPerRound {
  // Segments are a few samples long.
  static constexpr int kProx = 3;
  // The small λ of images leaves segments of one or two samples.
  static constexpr int kDykstra = 1;
};

// The rounds that a thread spends on the float32 taut string before it takes the decomposition:
// (kPerSample * n + kConstant) * 2 / (samples of a round + 1).
struct TautStringBudget {
  // Data that suit the taut string read up to 3.5 samples a sample (the slowest lane of a warp).
  // A ramp spends the whole budget before it is decomposed.
  static constexpr int kPerSample = 4;
  // Of a window: a sine with flat tops 40 samples long reads 15 samples a sample. The decomposition
  // by a warp takes as long as 45, so that little is lost where it follows.
  static constexpr int kPerWindowSample = 10;
  // Short signals need more per sample.
  static constexpr int kConstant = 64;
};

// ---- some threads per signal ----

// prox_windows: a few threads per float32 signal, each with a window of it.
struct ThreadWindows {
  // Samples of a window. Odd: neighbouring threads start in different banks of shared memory.
  static constexpr int kWindow = 65;
  // Samples that a thread reads before and after its window: what is further away hardly ever
  // changes the cuts in the window.
  static constexpr int kHalo = 48;
  // Of a block: small, as it waits for its slowest thread.
  static constexpr int kWarps = 2;
  // More than shared memory lets in (six blocks at n = 1024), but without it ptxas spills.
  static constexpr int kBlocksPerMultiprocessor = 8;
};

// ---- a warp or a block per signal ----

// prox_group and gaps, newton_group: kWarps = 1 is a warp per signal.
struct GroupPerSignal {
  // Signals of a block, where each has a warp. One warp a block would leave the limit of resident
  // blocks unused.
  static constexpr int kWarpsWithASignalEach = 4;
  // Warps of a block that has one signal of up to kLongestInSharedMemory: 8 samples a thread.
  static constexpr int kBlockWarps = 4;
  // Warps of a block for longer signals, which are read from global memory: as many loads in
  // flight as the registers allow.
  static constexpr int kWideWarps = 16;
  // The least number of resident blocks that prox_group's registers must allow.
  static constexpr int kBlocksPerMultiprocessor = 4;
  // Passes of the threshold decomposition before one thread finishes serially. Real data take up to
  // 21; only data of exponential range take more.
  static constexpr int kMostPasses = 64;
};

// prox_data_weight.
struct DataWeightPerSignal {
  // Without it ptxas takes few registers for float, and spills.
  static constexpr int kBlocksPerMultiprocessor = 1;
};

// newton_group and newton_wide.
struct NewtonPerSignal {
  // Warps of a block for long signals. More would have too few registers each.
  static constexpr int kWideWarps = 8;
  // It has the most state of all kernels: let ptxas take the registers it wants.
  static constexpr int kBlocksPerMultiprocessor = 1;
};

// ---- the whole device per signal ----

// The g_* kernels: threshold decomposition by tiles (prox1d/grid.cu).
struct GridDecomposition {
  // Few enough for several blocks on a multiprocessor, which hide each other's barriers.
  static constexpr int kBlockThreads = 256;
  // Neighbouring samples of a thread: enough to hide the scan over the block.
  static constexpr int kThreadSamples = 16;
  // Passes by launches, at most. Later passes have many regions, which blocks and threads finish.
  static constexpr int kMostPasses = 8;
  // Passes that fuse ties, at most; then one thread per signal finishes.
  static constexpr int kMostTiePasses = 2;
  // Threads of the block that scans the tiles of a signal: as many as a block may have.
  static constexpr int kScanThreads = 1024;
  // Regions of up to this length are finished by one thread.
  static constexpr int kLongestForThread = 64;
};

// ---- tiles of whole signals (block/tiles.cuh) ----

struct Tiles {
  // A tile that does not hold whole signals has at least this many samples of each. So a signal of
  // up to this length always fits.
  static constexpr int kFewestSamples = 256;
  // Shared memory that a tile should take: about eleven blocks on a multiprocessor.
  static constexpr int kPreferredBytes = 20 * 1024;
  // Signals of a tile, at most: one thread solves each.
  static constexpr int kMostLanes = 128;
  // Lanes are halved down to this, as long as there are fewer than kFewTiles tiles.
  static constexpr int kFewestLanes = 16;
};

// Below this many tiles a device is not full (four blocks on each of 132 multiprocessors).
constexpr std::int64_t kFewTiles = 512;
// This many neighbouring lanes read whole sectors of 32 bytes.
constexpr int kSectorLanes = 8;
// Loads in flight of a thread before it uses the first.
constexpr int kLoadsInFlight = 8;

// ---- segment means (segments/) ----

struct SegmentMeans {
  // Samples of a thread, at most. Odd: no bank conflicts. And the 16 codes of the edges around 15
  // samples fill a 32-bit word.
  static constexpr int kThreadSamples = 15;
  // Where all threads have no more, as with signals of 64 samples, the others' places are skipped.
  static constexpr int kFewSamples = 13;
  // Threads of a block, at most: the registers they leave are enough for kThreadSamples.
  template <class T>
  static constexpr int kMostBlockThreads = sizeof(T) == 4 ? 768 : 512;
  // What __launch_bounds__ says. The derivative of the 1D prox in float32 is held to 64 registers:
  // 32 warps then share a multiprocessor.
  template <class T, bool kDykstraPass>
  static constexpr int kLaunchBound = sizeof(T) == 4 && !kDykstraPass ? 1024 : kMostBlockThreads<T>;
  // Of that size. Without it ptxas takes as few registers as several blocks would need, and spills.
  static constexpr int kBlocksPerMultiprocessor = 1;
  // Threads of a block that are wanted, and at least left when lanes are halved for more tiles.
  static constexpr int kBlockThreads = 256;
  static constexpr int kFewestBlockThreads = 64;
  // Threads of the block that scans the chunks of a signal: a chunk each, for up to about 10^6
  // samples.
  static constexpr int kScanThreads = 256;
};

// ---- Dykstra (dykstra/) ----

// image_dykstra, image_jvp, image_vjp: an image stays in shared memory for all passes.
struct ImageInSharedMemory {
  // Threads of a block, at most. A thread has a line of the image; images of about 150 x 150 fit,
  // so few have more lines of one channel.
  static constexpr int kBlockThreads = 256;
  // Two blocks hide each other's barriers; that leaves 128 registers a thread.
  static constexpr int kBlocksPerMultiprocessor = 2;
  // Channels of a tile, at most: whole sectors of float32.
  static constexpr int kMostChannels = 8;
};

// pass_of_tiles, and the kernels around a pass that the 1D kernels do.
struct DykstraPass {
  // Of the kernels that only move data: eight blocks fill a multiprocessor. A tile has fewer.
  static constexpr int kBlockThreads = 256;
  // Of pass_of_tiles: at least two blocks of that size, so that ptxas does not take all registers.
  static constexpr int kBlocksPerMultiprocessor = 2;
  // Threads of a tile, at least, in pass_of_tiles: those without a signal load and store.
  static constexpr int kFewestTileThreads = 64;
  // Samples of a thread in one part of an array: enough to pay for finding the part.
  static constexpr int kThreadSamples = 16;
};

// ---- isotropic prox (isotropic/) ----

struct GradientProjection {
  // Iterations of a call, each a launch: between two calls XLA looks whether one is needed. A
  // multiple of 6, after which the three buffers of a dual and the two of the sums are in order.
  static constexpr int kSteps = 24;
  // Of project_duals and write_state.
  static constexpr int kBlockThreads = 256;
  // Enough threads to hide the loads. They leave 80 registers each for one channel in float32, and
  // 128 otherwise, so that nothing spills.
  template <class T, int kChannels>
  static constexpr int kBlocksPerMultiprocessor = sizeof(T) == 4 && kChannels < 2 ? 3 : 2;
  // Neighbouring rows of a thread: their values meet in the first cache.
  static constexpr int kThreadRows = 4;
  // Columns of a tile, at least: whole sectors of float32.
  static constexpr int kFewestColumns = 8;
  // Blocks of an element, at most: each adds up the sums of all. They fill a device.
  static constexpr int kMostBlocks = 1024;
};

// ---- components (components/) ----

struct Components {
  // A thread has one sample and no shared memory: eight blocks fill a multiprocessor.
  static constexpr int kBlockThreads = 256;
};

}  // namespace jaxtv::cuda::tuning
