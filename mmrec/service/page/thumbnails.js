/** Pictures that are fetched when they come into sight, a few at a time, so that nothing else has to wait for them. */

const AT_ONCE = 4;
const NEAR = "300px";

const wanted = new Set();
let fetched = 0;

const observer = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) wanted.add(target);
    else wanted.delete(target);
  }
  next();
}, { rootMargin: NEAR });

/** Fetches a picture from its address once it is near what is seen. */
export function whenSeen(image, address) {
  image.dataset.from = address;
  observer.observe(image);
  return image;
}

function next() {
  for (const image of wanted) {
    if (fetched >= AT_ONCE) return;
    wanted.delete(image);
    observer.unobserve(image);
    fetched += 1;
    const done = () => {
      fetched -= 1;
      next();
    };
    image.addEventListener("load", done, { once: true });
    image.addEventListener("error", done, { once: true });
    image.src = image.dataset.from;
  }
}
