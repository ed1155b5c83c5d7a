// JPEG files: their size, and parts of them that are decoded once and resized each to one size; on a libuv worker, or at once for a caller
// that is a worker itself.
#include "arguments.h"
#include "exports.h"
#include "jpeg.h"
#include "promised-work.h"

#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/ParallelGuard.h>

#include <climits>
#include <cmath>
#include <cstring>

namespace gmml {

namespace {

// Pixels along a side of a reduced part for each pixel of the result, at least.
constexpr int kGap = 2;

struct Part {
  Box box;  // of the upright image; later of the stored one
  bool flip;
};

// Where the pixels of an upright image lie in the stored one, which EXIF may want turned and mirrored.
struct Orientation {
  bool sideways, mirrorX, mirrorY;  // the mirrors in stored columns and rows

  explicit Orientation(int exif)
      : sideways(exif >= 5), mirrorX(exif == 2 || exif == 3 || exif == 7 || exif == 8),
        mirrorY(exif == 3 || exif == 4 || exif == 6 || exif == 7) {}

  Extent stored(Extent upright) const { return sideways ? Extent{upright.height, upright.width} : upright; }

  Box stored(const Box& box, const JpegHeader& image) const {
    Box turned = sideways ? Box{box.top, box.left, box.height, box.width} : box;
    if (mirrorX) turned.left = image.width - turned.left - turned.width;
    if (mirrorY) turned.top = image.height - turned.top - turned.height;
    return turned;
  }
};

// Where a part lies in the reduced image.
Area reduced(const Box& box, int eighths) {
  const double factor = eighths / 8.0;
  return {box.left * factor, box.top * factor, box.width * factor, box.height * factor};
}

// The pixels that all parts need.
Box around(const std::vector<Part>& parts, int eighths) {
  int left = INT_MAX, top = INT_MAX, right = 0, bottom = 0;
  for (const auto& part : parts) {
    const auto area = reduced(part.box, eighths);
    left = std::min(left, static_cast<int>(std::floor(area.left)));
    top = std::min(top, static_cast<int>(std::floor(area.top)));
    right = std::max(right, static_cast<int>(std::ceil(area.left + area.width)));
    bottom = std::max(bottom, static_cast<int>(std::ceil(area.top + area.height)));
  }
  return {left, top, right - left, bottom - top};
}

// The smallest reduction of 8/8, 4/8, 2/8 and 1/8 at which each side of each part has twice as many pixels as the result. Reducing is taking
// means of squares of pixels, and cubic weights on fewer means than that are no longer those on the pixels: the result would be sharper than
// a resized image, by two to five grey levels on average in finely drawn pictures. The other reductions exist in libjpeg-turbo, but without
// SIMD code: they take longer than 8/8.
int reductionFor(const std::vector<Part>& parts, Extent result) {
  const auto enough = [&](int eighths) {
    return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
      return static_cast<int64_t>(part.box.width) * eighths >= kGap * 8ll * result.width &&
             static_cast<int64_t>(part.box.height) * eighths >= kGap * 8ll * result.height;
    });
  };
  int eighths = 8;
  while (eighths > 1 && enough(eighths / 2)) eighths /= 2;
  return eighths;
}

struct Image {
  const uint8_t* data;
  int width, height;
  int64_t stepX, stepY, plane;
};

// Stored, resized pixels to upright planes [3, H, W].
void writePlanes(const Image& image, const Orientation& orientation, bool flip, Extent size, uint8_t* to) {
  // A flip turns the upright columns round: those are stored rows if the image lies on its side.
  const bool mirrorX = orientation.mirrorX != (flip && !orientation.sideways);
  const bool mirrorY = orientation.mirrorY != (flip && orientation.sideways);
  const auto* from = image.data + (mirrorX ? (image.width - 1) * image.stepX : 0) + (mirrorY ? (image.height - 1) * image.stepY : 0);
  int64_t stepX = mirrorX ? -image.stepX : image.stepX, stepY = mirrorY ? -image.stepY : image.stepY;
  if (orientation.sideways) std::swap(stepX, stepY);
  const int64_t area = static_cast<int64_t>(size.width) * size.height;
  for (int y = 0; y < size.height; ++y, from += stepY) {
    const auto* pixel = from;
    for (int x = 0; x < size.width; ++x, pixel += stepX, ++to) {
      to[0] = pixel[0];
      to[area] = pixel[image.plane];
      to[2 * area] = pixel[2 * image.plane];
    }
  }
}

// What is to be done with one file.
class JpegJob {
 public:
  JpegJob(std::vector<Part> parts, Extent size) : parts_(std::move(parts)), size_(size) {}

  size_t length() const { return 3ull * size_.width * size_.height * parts_.size(); }

  // Planes of all parts, one after another, `length()` bytes. false for what another decoder may do.
  bool run(const uint8_t* bytes, size_t length, uint8_t* planes) {
    try {
      return decode(bytes, length, planes);
    } catch (const std::bad_alloc&) {
      return false;  // another decoder may do with less
    }
  }

 private:
  bool decode(const uint8_t* bytes, size_t length, uint8_t* to) {
    JpegHeader header;
    JpegReader reader(bytes, length);
    if (!reader.readHeader(header)) return false;
    const Orientation orientation(header.orientation);
    for (auto& part : parts_) {
      part.box = orientation.stored(part.box, header);
      const auto& box = part.box;
      if (box.left < 0 || box.top < 0 || box.left > header.width - box.width || box.top > header.height - box.height) return false;
    }
    const int eighths = reductionFor(parts_, orientation.stored(size_));
    Pixels pixels;
    if (!reader.decode(eighths, around(parts_, eighths), pixels)) return false;
    // One thread for each image: images are what is worked on in parallel.
    const c10::ParallelGuard serial(true);
    const c10::InferenceMode inference;
    const auto size = orientation.stored(size_);
    for (const auto& part : parts_) {
      const auto write = [&](const Image& image) { writePlanes(image, orientation, part.flip, size_, to); };
      if (eighths == 8 && part.box.width == size.width && part.box.height == size.height) {
        write({cut(pixels, part.box), size.width, size.height, 3, 3ll * size.width, 1});
      } else if (eighths == 8) {
        const auto image = resize(pixels, part.box, size);
        write({image.const_data_ptr<uint8_t>(), size.width, size.height, image.stride(3), image.stride(2), image.stride(1)});
      } else {
        const auto image = resample(pixels, reduced(part.box, eighths), size);
        write({image.data(), size.width, size.height, 3, 3ll * size.width, 1});
      }
      to += 3ll * size.width * size.height;
    }
    return true;
  }

  // ATen's kernel for interleaved bytes: exact integers, so equal on any thread.
  at::Tensor resize(Pixels& pixels, const Box& box, Extent size) {
    const int64_t row = 3ll * box.width;
    const auto options = at::TensorOptions().dtype(at::kByte);
    const auto image = at::from_blob(cut(pixels, box), {1, 3, box.height, box.width}, {row * box.height, 1, row, 3}, options);
    return at::_upsample_bicubic2d_aa(image, {size.height, size.width}, false);
  }

  uint8_t* cut(Pixels& pixels, const Box& box) {
    const auto& all = pixels.box;
    const size_t row = 3ull * box.width;
    auto* from = pixels.data.data() + 3 * (static_cast<size_t>(box.top - all.top) * all.width + (box.left - all.left));
    if (box.width == all.width) return from;
    cut_.resize(row * box.height);
    for (int y = 0; y < box.height; ++y, from += 3ull * all.width) std::memcpy(cut_.data() + y * row, from, row);
    return cut_.data();
  }

  std::vector<Part> parts_;
  Extent size_;
  std::vector<uint8_t> cut_;
};

class DecodeJpeg : public PromisedWork {
 public:
  // The bytes are copied: what JavaScript does with its own meanwhile is no concern of the worker.
  DecodeJpeg(const Napi::CallbackInfo& info, std::vector<uint8_t> bytes, JpegJob job)
      : PromisedWork(info, "decodeJpeg"), bytes_(std::move(bytes)), job_(std::move(job)) {}

  void work() override {
    planes_.resize(job_.length());
    done_ = job_.run(bytes_.data(), bytes_.size(), planes_.data());
  }

  Napi::Value result() override {
    if (!done_) return Env().Null();
    auto array = Napi::Uint8Array::New(Env(), planes_.size());
    std::memcpy(array.Data(), planes_.data(), planes_.size());
    return array;
  }

 private:
  std::vector<uint8_t> bytes_, planes_;
  JpegJob job_;
  bool done_ = false;
};

struct Bytes {
  uint8_t* data;
  size_t length;
};

Bytes bytesAt(const Napi::CallbackInfo& info, size_t index) {
  const auto value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) refuseAt(info, index, "a Uint8Array");
  // The pointer straight from Node-API: the array may lie in a SharedArrayBuffer, which Napi::ArrayBuffer is not.
  void* data = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(info.Env(), value, nullptr, &length, &data, nullptr, nullptr);
  return {static_cast<uint8_t*>(data), length};
}

// Five numbers for each part: left, top, width, height, flip.
std::vector<Part> partsAt(const Napi::CallbackInfo& info, size_t index) {
  const auto value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) refuseAt(info, index, "an Int32Array");
  const auto numbers = value.As<Napi::Int32Array>();
  if (numbers.ElementLength() == 0 || numbers.ElementLength() % 5 != 0) refuseAt(info, index, "five numbers for each of one or more parts");
  std::vector<Part> parts;
  for (size_t i = 0; i < numbers.ElementLength(); i += 5) {
    if (numbers[i + 2] < 1 || numbers[i + 3] < 1) refuseAt(info, index, "parts of at least 1 x 1 pixels");
    parts.push_back({{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]}, numbers[i + 4] != 0});
  }
  return parts;
}

int sideAt(const Napi::CallbackInfo& info, size_t index) {
  const double side = numberAt(info, index);
  if (!(side >= 1 && side <= INT_MAX) || side != std::floor(side)) refuseAt(info, index, "a length in whole pixels");
  return static_cast<int>(side);
}

// (parts, height, width) from the second argument on.
JpegJob jobOf(const Napi::CallbackInfo& info) {
  auto parts = partsAt(info, 1);
  const Extent size{sideAt(info, 3), sideAt(info, 2)};
  const double needed = 3.0 * size.height * size.width * static_cast<double>(parts.size());
  if (needed > 1ull << 31) refuseAt(info, 2, "results of at most 2 GiB");
  return {std::move(parts), size};
}

Napi::Value jpegSize(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0);
  JpegHeader header;
  JpegReader reader(bytes.data, bytes.length);
  if (!reader.readHeader(header)) return info.Env().Null();
  if (header.sideways()) std::swap(header.width, header.height);
  const int64_t size[] = {header.width, header.height};
  return fromSizes(info.Env(), size);
}

Napi::Value decodeJpeg(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0);
  return (new DecodeJpeg(info, std::vector<uint8_t>(bytes.data, bytes.data + bytes.length), jobOf(info)))->start();
}

Napi::Value decodeJpegSync(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0), planes = bytesAt(info, 4);
  auto job = jobOf(info);
  if (planes.length != job.length()) refuseAt(info, 4, "an array as long as the planes of all parts");
  return Napi::Boolean::New(info.Env(), job.run(bytes.data, bytes.length, planes.data));
}

// Interleaved pixels [step * H, step * W, 3] to planes [3, H, W]: the last of every `step` pixels of a side, mirrored on the way.
Napi::Value writePlanes(const Napi::CallbackInfo& info) {
  const auto pixels = bytesAt(info, 0), planes = bytesAt(info, 5);
  const Extent size{sideAt(info, 2), sideAt(info, 1)};
  const int64_t step = sideAt(info, 3);
  const bool flip = boolAt(info, 4);
  const double area = static_cast<double>(size.width) * size.height;
  if (static_cast<double>(pixels.length) != 3 * area * step * step) refuseAt(info, 0, "as many bytes as these pixels have");
  if (static_cast<double>(planes.length) != 3 * area) refuseAt(info, 5, "an array as long as the planes");
  const int64_t row = 3 * step * size.width;
  const auto* last = pixels.data + (step - 1) * (row + 3);
  writePlanes({last, size.width, size.height, 3 * step, row * step, 1}, Orientation(1), flip, size, planes.data);
  return info.Env().Undefined();
}

}  // namespace

void initImages(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"jpegSize", jpegSize>(env, exports, environment);
  exportFunction<"decodeJpeg", decodeJpeg>(env, exports, environment);
  exportFunction<"decodeJpegSync", decodeJpegSync>(env, exports, environment);
  exportFunction<"writePlanes", writePlanes>(env, exports, environment);
}

}  // namespace gmml
