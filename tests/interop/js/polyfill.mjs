// What js-libp2p takes for granted and Node 20 has not yet: imported first.

if (Promise.withResolvers === undefined) {
  Promise.withResolvers = function () {
    let resolve
    let reject
    const promise = new this((accept, refuse) => {
      resolve = accept
      reject = refuse
    })
    return { promise, resolve, reject }
  }
}
